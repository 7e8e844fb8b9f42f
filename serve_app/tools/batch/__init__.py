"""Detection over many pictures without a service: the same engines, on Ray Data."""

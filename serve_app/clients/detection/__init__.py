"""Detection clients: one class for each protocol, all with the same results."""

"""From weights to a Triton model repository: what `make models` runs."""

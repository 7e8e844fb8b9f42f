"""`scripts/sweep`: a search for the best config.pbtxt of a model."""

"""Measuring the service: load that costs little, numbers with their spread, and what else there is to compare with."""

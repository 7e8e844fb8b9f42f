"""Benchmarks: load generation, tracks, comparisons with other servers, a search for model configs, and a GPU check."""

"""`scripts/gpu_check`: what a GPU machine has, which engines run on it, and how right and how fast its tracks are."""

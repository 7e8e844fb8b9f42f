"""What changes a service: checks before, what is applied and kept, another cluster, the way back, the end."""

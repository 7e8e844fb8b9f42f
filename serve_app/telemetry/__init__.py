"""What the service tells of itself, and what is decided by it."""

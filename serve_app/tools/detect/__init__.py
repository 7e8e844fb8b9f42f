"""`scripts/detect`: the pictures of a folder through the service."""

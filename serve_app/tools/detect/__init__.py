"""`scripts/detect`: a folder of pictures through the service."""

"""A model repository on S3: pushed and pulled as a whole, and followed by the pods that serve it."""

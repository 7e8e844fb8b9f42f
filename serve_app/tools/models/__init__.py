"""The model repository on S3: pushed whole, pulled whole, and followed by what serves it."""

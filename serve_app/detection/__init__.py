"""What happens to a picture outside the engine: tracks, decoding, letterbox, boxes, the PyTorch baseline."""

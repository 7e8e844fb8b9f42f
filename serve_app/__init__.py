"""YOLO detection and language models behind one Ray Serve router."""

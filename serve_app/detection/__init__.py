"""Detection outside the engines: tracks, preprocessing, postprocessing, graphs, and the PyTorch baseline."""

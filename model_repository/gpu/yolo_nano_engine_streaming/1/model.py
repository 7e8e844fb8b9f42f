"""Runs the engine beside this file with ONNX Runtime or PyTorch, where the config says so."""

from serve_app.triton.python_models.batch_engine import TritonPythonModel

__all__ = ["TritonPythonModel"]

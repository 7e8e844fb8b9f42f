"""Runs the engine beside this file with OpenVINO."""

from serve_app.triton.python_models.openvino_engine import TritonPythonModel

__all__ = ["TritonPythonModel"]

"""Decodes and letterboxes pictures with DALI."""

from serve_app.triton.python_models.dali_picture import TritonPythonModel

__all__ = ["TritonPythonModel"]

"""Decodes and letterboxes pictures."""

from serve_app.triton.python_models.picture import TritonPythonModel

__all__ = ["TritonPythonModel"]

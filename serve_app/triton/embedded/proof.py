"""A check that the Python backend returns tensors unchanged in this environment."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy

from .datatypes import ModelControlMode
from .errors import InternalError, TritonError
from .options import Options
from .server import Server
from .tensor import Tensor

_MODEL = "python_backend_proof"
_CODE = """
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor(t.name().replace("IN_", "OUT_"), t.as_numpy()) for t in request.inputs()]
            )
            for request in requests
        ]
"""
_SAMPLES: dict[str, Any] = {
    "BOOL": numpy.array([[True, False], [False, True]]),
    "UINT8": numpy.arange(256, dtype=numpy.uint8).reshape(2, 128),
    "INT32": numpy.array([[-(2**31), 2**31 - 1], [0, -1]], dtype=numpy.int32),
    "INT64": numpy.array([[-(2**63), 2**63 - 1]], dtype=numpy.int64),
    "FP16": numpy.array([[1.5, -65504.0]], dtype=numpy.float16),
    "FP32": numpy.linspace(-3, 3, 1001, dtype=numpy.float32).reshape(7, 143),
    "FP64": numpy.array([[numpy.pi], [-numpy.e]]),
    "STRING": numpy.array([[b"", b"bytes \x00 \xff", "ж".encode()]], dtype=numpy.object_),
}


def prove_python_backend(server: Server | None = None) -> None:
    """Send known tensors through an identity model and raise if one comes back changed.

    The model is loaded into the given server, which must be in mode EXPLICIT, or into a new one.
    """
    with tempfile.TemporaryDirectory(prefix="serve_app-proof-") as repository:
        _write_model(Path(repository))
        try:
            if server is not None:
                _prove_in(server, repository)
                return
            options = Options(model_repository=repository, model_control_mode=ModelControlMode.EXPLICIT, metrics=False)
            own = Server(options).start()
            try:
                _prove(own)
            finally:
                own.stop()
        except TritonError as error:
            raise InternalError(f"the Python backend does not work here: {error}") from error


def _prove_in(server: Server, repository: str) -> None:
    server.register_model_repository(repository)
    try:
        _prove(server)
        server.unload(_MODEL)
    finally:
        server.unregister_model_repository(repository)


def _prove(server: Server) -> None:
    inputs = {f"IN_{name}": value for name, value in _SAMPLES.items()}
    (response,) = server.load(_MODEL).infer(inputs=inputs)
    _compare(response.outputs)


def _compare(outputs: dict[str, Tensor]) -> None:
    for name, sent in _SAMPLES.items():
        got = numpy.asarray(outputs[f"OUT_{name}"])
        if got.shape != sent.shape or got.dtype != sent.dtype or not numpy.array_equal(got, sent):
            raise InternalError(f"a {name} tensor came back changed (numpy {numpy.__version__})")


def _write_model(repository: Path) -> None:
    folder = repository / _MODEL / "1"
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(_CODE)
    sides = {"input": "IN", "output": "OUT"}
    entries = [
        f'{side} [ {{ name: "{prefix}_{name}" data_type: TYPE_{name} dims: [ -1, -1 ] }} ]'
        for name in _SAMPLES
        for side, prefix in sides.items()
    ]
    (folder.parent / "config.pbtxt").write_text("\n".join(['backend: "python"', "max_batch_size: 0", *entries]))

"""The inputs of a trial: a picture for detectors, otherwise random numbers of the model's types and shapes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig
from tritonclient.utils import triton_to_np_dtype

from serve_app.detection.preprocess import as_unit_planes, decode, letterbox
from serve_app.errors import InvalidRequestError
from serve_app.settings import MAX_PIXELS

Arrays = dict[str, npt.NDArray[Any]]
MAX_INTEGER = 100


def inputs_of(config: ModelConfig, picture: bytes, shapes: Mapping[str, Sequence[int]]) -> Arrays:
    """For a request with a batch of one."""
    unknown = set(shapes) - {tensor.name for tensor in config.input}
    if unknown:
        raise InvalidRequestError(f"--shape: {config.name} has no input {', '.join(sorted(unknown))}")
    found = {}
    for tensor in config.input:
        array = _from_picture(tensor.name, list(tensor.dims), tensor.data_type, picture)
        if array is None:
            array = _random(tensor, shapes.get(tensor.name))
        found[tensor.name] = array[None] if config.max_batch_size else array
    return found


def _from_picture(name: str, dims: list[int], data_type: int, picture: bytes) -> npt.NDArray[Any] | None:
    """For inputs of detectors: encoded bytes, a letterboxed square, or its planes; None for other inputs."""
    if name == "encoded" and data_type == DataType.TYPE_UINT8:
        return np.frombuffer(picture, np.uint8)
    if name != "images" or len(dims) != 3 or min(dims) < 0:
        return None
    square, _ = letterbox(decode(picture, MAX_PIXELS), max(dims))
    return as_unit_planes(square)[0] if data_type == DataType.TYPE_FP32 else square


def _random(tensor: Any, shape: Sequence[int] | None) -> npt.NDArray[Any]:
    dims = list(shape) if shape else list(tensor.dims)
    if len(dims) != len(tensor.dims) or any(
        fixed not in (-1, size) for fixed, size in zip(tensor.dims, dims, strict=False)
    ):
        raise InvalidRequestError(
            f"--shape: {tensor.name} has the shape {list(tensor.dims)}, which {dims} does not fit"
        )
    if min(dims, default=0) < 0:
        raise InvalidRequestError(
            f"--shape: {tensor.name} has the shape {dims}; pass a fixed one, as in {tensor.name}:16"
        )
    name = DataType.Name(tensor.data_type).removeprefix("TYPE_")
    if name == "STRING":
        return np.full(dims, b"text", np.object_)
    dtype = np.dtype(triton_to_np_dtype(name))
    return np.random.default_rng(0).integers(0, 2 if dtype == np.bool_ else MAX_INTEGER, dims).astype(dtype)

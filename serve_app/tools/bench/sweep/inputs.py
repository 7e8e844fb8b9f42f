"""What a model is asked while it is tried: a real picture for detectors, else numbers of its types and shapes."""

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
MOST = 100  # of random integers


def inputs_of(config: ModelConfig, picture: bytes, shapes: Mapping[str, Sequence[int]]) -> Arrays:
    """One request of a batch of one."""
    unknown = set(shapes) - {given.name for given in config.input}
    if unknown:
        raise InvalidRequestError(f"--shape: {config.name} has no input {', '.join(sorted(unknown))}")
    found = {}
    for given in config.input:
        array = _of_picture(given.name, list(given.dims), given.data_type, picture)
        if array is None:
            array = _of_numbers(given, shapes.get(given.name))
        found[given.name] = array[None] if config.max_batch_size else array
    return found


def _of_picture(name: str, dims: list[int], data_type: int, picture: bytes) -> npt.NDArray[Any] | None:
    """What detectors take: a picture's bytes, its letterboxed square, or that as planes."""
    if name == "encoded" and data_type == DataType.TYPE_UINT8:
        return np.frombuffer(picture, np.uint8)
    if name != "images" or len(dims) != 3 or min(dims) < 0:
        return None
    square, _ = letterbox(decode(picture, MAX_PIXELS), max(dims))
    return as_unit_planes(square)[0] if data_type == DataType.TYPE_FP32 else square


def _of_numbers(given: Any, shape: Sequence[int] | None) -> npt.NDArray[Any]:
    dims = list(shape) if shape else list(given.dims)
    if len(dims) != len(given.dims) or any(
        fixed not in (-1, size) for fixed, size in zip(given.dims, dims, strict=False)
    ):
        raise InvalidRequestError(f"--shape: {given.name} has the shape {list(given.dims)}, which {dims} doesn't fit")
    if min(dims, default=0) < 0:
        raise InvalidRequestError(f"--shape: {given.name} has the shape {dims}; say which, as in {given.name}:16")
    name = DataType.Name(given.data_type).removeprefix("TYPE_")
    if name == "STRING":
        return np.full(dims, b"text", np.object_)
    dtype = np.dtype(triton_to_np_dtype(name))
    return np.random.default_rng(0).integers(0, 2 if dtype == np.bool_ else MOST, dims).astype(dtype)

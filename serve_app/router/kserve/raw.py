"""The raw binary request: a body that is nothing but the one input of its model."""

import math
from collections.abc import Mapping
from typing import Any

from serve_app.errors import InvalidRequestError
from serve_app.types.tensors import ELEMENT_BYTES, LENGTH_BYTES, InferRequest, Tensor


def raw_request(
    model: str, version: int, body: memoryview, metadata: Mapping[str, Any], batched: bool, deadline: float
) -> InferRequest:
    """Text and other BYTES are one element; of numbers at most one dimension is open, and the body says it."""
    if len(metadata["inputs"]) != 1:
        raise InvalidRequestError(f"a raw binary request needs a model with one input; '{model}' has another number")
    (row,) = metadata["inputs"]
    dims = [int(size) for size in row["shape"]]
    if batched:
        dims[0] = 1
    if row["datatype"] == "BYTES":
        data: bytes | memoryview = len(body).to_bytes(LENGTH_BYTES, "little") + body
        shape = tuple(1 if size == -1 else size for size in dims)
    else:
        data, shape = body, _fill(row["name"], dims, len(body), ELEMENT_BYTES[row["datatype"]])
    return InferRequest(
        model=model, version=version, inputs=(Tensor(row["name"], row["datatype"], shape, data),), deadline=deadline
    )


def _fill(name: str, dims: list[int], size: int, width: int) -> tuple[int, ...]:
    known = math.prod(size for size in dims if size != -1) * width
    if dims.count(-1) > 1:
        raise InvalidRequestError(f"input '{name}' has more than one open dimension: a raw binary request can't say it")
    open_size, rest = divmod(size, known) if known else (0, size)
    if rest or (-1 not in dims and open_size != 1):
        raise InvalidRequestError(f"the body has {size} bytes, which is no whole input '{name}' of shape {dims}")
    return tuple(open_size if size == -1 else size for size in dims)

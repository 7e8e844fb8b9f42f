"""Tensor values in JSON, to and from the protocol's binary layout."""

import math
from typing import Any

import numpy as np

from serve_app.errors import InvalidRequestError
from serve_app.types.tensors import ELEMENT_BYTES, NUMPY_TYPES, Tensor, pack_elements

# Triton refuses these in JSON too, because their values would be rounded.
BINARY_ONLY = ("FP16", "BF16")
# The JSON types of each datatype; the others take integers.
KINDS: dict[str, set[type]] = {"BOOL": {bool}, "BYTES": {str}, "FP32": {int, float}, "FP64": {int, float}}


def pack_values(name: str, datatype: str, shape: tuple[int, ...], values: Any) -> bytes:
    """Nested or flat lists of numbers, booleans or text as the bytes of a tensor."""
    if datatype not in ELEMENT_BYTES:
        raise InvalidRequestError(f"invalid datatype for input {name}")
    if datatype in BINARY_ONLY:
        raise InvalidRequestError(
            f"receiving {datatype} data via JSON is not supported. Please use the binary data format for input {name}"
        )
    flat = _flatten(values)
    if len(flat) != math.prod(shape):
        raise InvalidRequestError(
            f"input {name!r} has {len(flat)} values, but its shape {list(shape)} needs {math.prod(shape)}"
        )
    found = set(map(type, flat))
    if not found <= KINDS.get(datatype, {int}):
        raise InvalidRequestError(f"the data of input {name!r} has values that are not {datatype}")
    if datatype == "BYTES":
        return pack_elements([value.encode("utf-8", "surrogatepass") for value in flat])
    return _pack_numbers(name, datatype, flat)


def _flatten(values: Any) -> list[Any]:
    """A flat list however deep the values are nested, as in Triton."""
    if not isinstance(values, list):
        return [values]
    if list not in set(map(type, values)):
        return values
    flat: list[Any] = []
    waiting: list[Any] = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += reversed(value)
        else:
            flat.append(value)
    return flat


def _pack_numbers(name: str, datatype: str, flat: list[Any]) -> bytes:
    wanted: np.dtype[Any] = np.dtype(NUMPY_TYPES[datatype])
    if wanted.kind in "iu" and flat:
        limits = np.iinfo(wanted)
        low, high = min(flat), max(flat)
        if low < limits.min or high > limits.max:
            raise InvalidRequestError(
                f"the data of input {name!r} ranges from {low} to {high}, out of range for {datatype}"
            )
    try:
        with np.errstate(over="ignore"):  # values too large for FP32 become infinite, as in Triton
            return np.array(flat, np.float64 if wanted.kind == "f" else wanted).astype(wanted).tobytes()
    except OverflowError:
        raise InvalidRequestError(f"the data of input {name!r} has an integer out of range for {datatype}") from None


def unpack_values(tensor: Tensor) -> list[Any]:
    """A flat list, as in Triton's answers."""
    if tensor.datatype in BINARY_ONLY:
        raise InvalidRequestError(
            f"sending {tensor.datatype} data via JSON is not supported. "
            f"Please use the binary data format for output {tensor.name}"
        )
    if tensor.datatype == "BYTES":
        try:
            return [element.decode() for element in tensor.elements()]
        except UnicodeDecodeError:
            raise InvalidRequestError(f"output {tensor.name!r} is not valid UTF-8: request it as binary data") from None
    return list(tensor.array().ravel().tolist())

"""Parameter objects of the C API: what a load, a name mapping or the labels of a metric are given as."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ctypes import c_bool, c_double, c_int64, c_void_p
from typing import Any

from .capi import api, text
from .datatypes import ParameterType
from .errors import InvalidArgumentError

_BYTES = (bytes, bytearray, memoryview)


@contextmanager
def parameter_array(values: Mapping[str, Any]) -> Iterator[Any]:
    """A C array of parameters, deleted at the end of the context."""
    pointers: list[int] = []
    # Triton keeps the address of a BYTES parameter, not the bytes: they live as long as the array.
    values = {name: bytes(value) if isinstance(value, _BYTES) else value for name, value in values.items()}
    try:
        for name, value in values.items():
            pointers.append(_new(name, value))
        yield (c_void_p * max(1, len(pointers)))(*pointers)
    finally:
        for pointer in pointers:
            api().ParameterDelete(pointer)


def _new(name: str, value: Any) -> int:
    key = text(name, "parameter name")
    if isinstance(value, bytes):
        pointer = api().ParameterBytesNew(key, value, len(value))
    else:
        kind, holder = _typed(name, value)
        pointer = api().ParameterNew(key, kind, ctypes.cast(ctypes.pointer(holder), c_void_p))
    if not pointer:
        raise InvalidArgumentError(f"parameter {name} could not be made")
    return int(pointer)


def _typed(name: str, value: Any) -> tuple[ParameterType, Any]:
    if isinstance(value, str):
        return ParameterType.STRING, ctypes.create_string_buffer(text(value, f"parameter {name}"))
    if isinstance(value, bool):  # before int, of which it is a kind
        return ParameterType.BOOL, c_bool(value)
    if isinstance(value, int):
        return ParameterType.INT, c_int64(value)
    if isinstance(value, float):
        return ParameterType.DOUBLE, c_double(value)
    raise InvalidArgumentError(f"Unsupported Value. Can't convert {type(value)} to Parameter ({name})")

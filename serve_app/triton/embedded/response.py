"""Inference responses, and how a response of the C API becomes one that owns its memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass, field
from typing import Any

from .capi import api, check, read_error
from .datatypes import DataType, MemoryType, ParameterType
from .errors import InternalError, TritonError
from .memory import DEFAULT_PLACEMENT, MemoryBuffer
from .request import ModelName
from .tensor import Tensor

_DATA_TYPES = tuple(DataType)


@dataclass(slots=True)
class InferenceResponse:
    """One response to a request; a decoupled model gives many, of which the last is `final`."""

    model: ModelName
    request_id: str | None = None
    parameters: dict[str, str | int | bool | float] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    error: Exception | None = None
    classification_label: str | None = None
    final: bool = False


class _Slots:
    """Out-parameters that are reused: creating them costs more than the calls."""

    __slots__ = ("args", "base", "byte_size", "count", "data_type", "dims", "name", "number", "shape", "type")

    def __init__(self) -> None:
        self.count, self.name, self.number = c_uint32(), c_char_p(), c_int64()
        self.data_type, self.shape, self.dims = c_int(), POINTER(c_int64)(), c_uint64()
        self.base, self.byte_size, self.type = c_void_p(), c_size_t(), c_int()
        self.args = tuple(
            byref(value)
            for value in (
                self.name,
                self.data_type,
                self.shape,
                self.dims,
                self.base,
                self.byte_size,
                self.type,
                self.number,
                c_void_p(),
            )
        )


_pool: list[_Slots] = []


def read_response(
    pointer: int | None,
    model_of: Callable[[str, int], ModelName],
    request_id: str,
    buffers: dict[int, MemoryBuffer],
    final: bool,
) -> InferenceResponse:
    """The response at `pointer`, whose outputs lie in `buffers`; without a pointer it only ends the request."""
    if not pointer:
        return InferenceResponse(model_of("", -1), request_id, final=final)
    slots = _pool.pop() if _pool else _Slots()
    try:
        library = api()
        error = library.InferenceResponseError(pointer)
        library.InferenceResponseModel(pointer, slots.name, slots.number)
        model = model_of((slots.name.value or b"").decode(), slots.number.value)
        result = InferenceResponse(model, request_id, final=final)
        if error:
            result.error = read_error(error)
        result.parameters = _read_parameters(library, pointer, slots)
        if not error:  # the fields of an output that could not be allocated are not initialized
            result.outputs = _read_outputs(library, pointer, buffers, slots)
    except Exception as failure:
        result = InferenceResponse(model_of("", -1), request_id, final=final)
        result.error = (
            failure
            if isinstance(failure, TritonError)
            else InternalError(f"Unexpected error in creating response object: {failure}")
        )
    finally:
        _pool.append(slots)
    return result


def _read_outputs(library: Any, pointer: int, buffers: dict[int, MemoryBuffer], slots: _Slots) -> dict[str, Tensor]:
    outputs: dict[str, Tensor] = {}
    library.InferenceResponseOutputCount(pointer, slots.count)
    for index in range(slots.count.value):
        check(library.InferenceResponseOutput(pointer, index, *slots.args))
        base = slots.base.value
        buffer = buffers.pop(base, None) if base else None
        if buffer is None:
            buffer = _empty_buffer(slots)
        elif buffer.size != slots.byte_size.value:
            buffer.size = slots.byte_size.value
        name = (slots.name.value or b"").decode()
        shape = slots.shape[: slots.dims.value]
        outputs[name] = Tensor(_DATA_TYPES[slots.data_type.value], shape, buffer)
    return outputs


def _empty_buffer(slots: _Slots) -> MemoryBuffer:
    if slots.byte_size.value:
        raise InternalError(f"output {slots.name.value!r} is in memory that was not allocated for it")
    return DEFAULT_PLACEMENT.allocate(0, MemoryType.CPU, 0, "")


def _read_parameters(library: Any, pointer: int, slots: _Slots) -> dict[str, str | int | bool | float]:
    library.InferenceResponseParameterCount(pointer, slots.count)
    parameters: dict[str, str | int | bool | float] = {}
    for index in range(slots.count.value):
        check(library.InferenceResponseParameter(pointer, index, slots.name, slots.type, slots.base))
        name = (slots.name.value or b"").decode()
        parameters[name] = _parameter_value(slots.type.value, slots.base.value or 0)
    return parameters


def _parameter_value(kind: int, address: int) -> str | int | bool | float:
    if kind == ParameterType.STRING:
        return ctypes.string_at(address).decode("utf-8", "replace")
    if kind == ParameterType.INT:
        return c_int64.from_address(address).value
    if kind == ParameterType.BOOL:
        return ctypes.c_bool.from_address(address).value
    if kind == ParameterType.DOUBLE:
        return c_double.from_address(address).value
    raise InternalError(f"response parameter has unknown type {kind}")

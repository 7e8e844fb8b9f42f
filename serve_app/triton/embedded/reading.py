"""How a response of the C API becomes an InferenceResponse that owns its memory."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_int64, c_size_t, c_uint32, c_uint64, c_void_p
from typing import TYPE_CHECKING, Any

from .capi import api, check, read_error
from .datatypes import DataType, MemoryType, ParameterType
from .errors import InternalError, TritonError
from .memory import DEFAULT_PLACEMENT, MemoryBuffer
from .response import InferenceResponse
from .tensor import Tensor

if TYPE_CHECKING:
    from .flight import Flight

_LOST_STUB = "is not healthy"  # what the Python backend says of a stub that died
_DATA_TYPES = tuple(DataType)


class _Slots:
    """Out-parameters that are used again and again: making them costs more than the calls."""

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


def read_response(flight: Flight, response: int | None, final: bool) -> InferenceResponse:
    if not response:
        return InferenceResponse(flight.model_of("", -1), flight.request_id or "", final=final)
    slots = _pool.pop() if _pool else _Slots()
    try:
        library = api()
        error = library.InferenceResponseError(response)
        library.InferenceResponseModel(response, slots.name, slots.number)
        model = flight.model_of((slots.name.value or b"").decode(), slots.number.value)
        result = InferenceResponse(model, flight.request_id or "", final=final)
        if error:
            result.error = read_error(error)
            flight.server.lost_stub |= _LOST_STUB in str(result.error)
        result.parameters = _read_parameters(library, response, slots)
        result.outputs = _read_outputs(library, flight, response, slots)
    except Exception as failure:
        result = InferenceResponse(flight.model_of("", -1), flight.request_id or "", final=final)
        result.error = (
            failure
            if isinstance(failure, TritonError)
            else InternalError(f"Unexpected error in creating response object: {failure}")
        )
    finally:
        _pool.append(slots)
    return result


def _read_outputs(library: Any, flight: Flight, response: int, slots: _Slots) -> dict[str, Tensor]:
    outputs: dict[str, Tensor] = {}
    library.InferenceResponseOutputCount(response, slots.count)
    for index in range(slots.count.value):
        check(library.InferenceResponseOutput(response, index, *slots.args))
        base = slots.base.value
        buffer = flight.buffers.pop(base, None) if base else None
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
        raise InternalError(f"output {slots.name.value!r} lies in memory that was not allocated for it")
    return DEFAULT_PLACEMENT.allocate(0, MemoryType.CPU, 0, "")


def _read_parameters(library: Any, response: int, slots: _Slots) -> dict[str, str | int | bool | float]:
    library.InferenceResponseParameterCount(response, slots.count)
    parameters: dict[str, str | int | bool | float] = {}
    for index in range(slots.count.value):
        check(library.InferenceResponseParameter(response, index, slots.name, slots.type, slots.base))
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
    raise InternalError(f"response parameter of unknown type {kind}")

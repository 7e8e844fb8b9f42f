"""Inference requests, and how one becomes a request of the C API."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable
from ctypes import byref, c_int64, c_void_p
from dataclasses import dataclass, field
from typing import Any, Protocol

from .capi import api, check, text
from .datatypes import DeviceOrMemoryType
from .errors import InvalidArgumentError
from .memory import DEFAULT_PLACEMENT, MemoryAllocator, OutputPlacement
from .tensor import Tensor
from .trace import InferenceTrace

_SHAPES = {rank: c_int64 * max(1, rank) for rank in range(33)}
_UINT64 = 1 << 64


class ModelName(Protocol):
    """What requests and responses know of a Model."""

    name: str
    version: int


@dataclass
class InferenceRequest:
    """One request to a model; the same object may be sent several times."""

    model: ModelName
    request_id: str | None = None
    flags: int = 0
    correlation_id: int | str | None = None
    priority: int = 0
    timeout: int = 0
    inputs: dict[str, Tensor | Any] = field(default_factory=dict)
    parameters: dict[str, str | int | bool | float] = field(default_factory=dict)
    output_memory_type: DeviceOrMemoryType | None = None
    output_memory_allocator: MemoryAllocator | None = None
    response_queue: queue.SimpleQueue[Any] | asyncio.Queue[Any] | None = None
    trace: InferenceTrace | None = None
    # An addition to NVIDIA's class: the outputs to compute, all of them for ().
    requested_outputs: tuple[str, ...] = ()
    _cancel: Callable[[], None] | None = field(init=False, default=None, repr=False, compare=False)

    def cancel(self) -> None:
        """Ask Triton to cancel the inference that was started last with this request."""
        if self._cancel is not None:
            self._cancel()

    def _tensors(self) -> dict[str, Tensor]:
        return {
            name: value if isinstance(value, Tensor) else Tensor._from_object(value)
            for name, value in self.inputs.items()
        }

    def _placement(self) -> OutputPlacement:
        if self.output_memory_type is None and self.output_memory_allocator is None:
            return DEFAULT_PLACEMENT
        return OutputPlacement(self.output_memory_allocator, self.output_memory_type)

    def _create(self, server: int, tensors: dict[str, Tensor]) -> int:
        """A request of the C API that belongs to the caller until it is submitted."""
        library, pointer = api(), c_void_p()
        name = text(self.model.name, "model name")
        check(library.InferenceRequestNew(byref(pointer), server, name, self.model.version))
        assert pointer.value is not None
        try:
            self._set_options(library, pointer.value)
            _add_inputs(library, pointer.value, tensors)
            for output in self.requested_outputs:
                check(library.InferenceRequestAddRequestedOutput(pointer.value, text(output, "output name")))
            for key, value in self.parameters.items():
                _set_parameter(library, pointer.value, key, value)
        except BaseException:
            library.InferenceRequestDelete(pointer)
            raise
        return pointer.value

    def _set_options(self, library: Any, pointer: int) -> None:
        if self.request_id is not None:
            check(library.InferenceRequestSetId(pointer, text(self.request_id, "request_id")))
        if self.flags:
            check(library.InferenceRequestSetFlags(pointer, self.flags))
        if self.priority:
            check(library.InferenceRequestSetPriorityUInt64(pointer, _unsigned(self.priority, "priority")))
        if self.timeout:
            check(library.InferenceRequestSetTimeoutMicroseconds(pointer, _unsigned(self.timeout, "timeout")))
        if isinstance(self.correlation_id, str):
            identifier = text(self.correlation_id, "correlation_id")
            check(library.InferenceRequestSetCorrelationIdString(pointer, identifier))
        elif self.correlation_id is not None:
            number = _unsigned(self.correlation_id, "correlation_id")
            check(library.InferenceRequestSetCorrelationId(pointer, number))


def _unsigned(value: int, what: str) -> int:
    if not isinstance(value, int):
        raise TypeError(f"{what} must be int, not {type(value).__name__}: {value!r}")
    if not 0 <= value < _UINT64:
        raise InvalidArgumentError(f"{what} must be between 0 and {_UINT64 - 1}, got {value}")
    return value


def _add_inputs(library: Any, pointer: int, tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        encoded, rank, buffer = text(name, "input name"), len(tensor.shape), tensor.memory_buffer
        shape = (_SHAPES.get(rank) or c_int64 * rank)(*tensor.shape)
        error = library.InferenceRequestAddInput(pointer, encoded, tensor.data_type, shape, rank)
        if not error:
            error = library.InferenceRequestAppendInputData(
                pointer, encoded, buffer.data_ptr, buffer.size, buffer.memory_type, buffer.memory_type_id
            )
        check(error)


def _set_parameter(library: Any, pointer: int, name: str, value: str | int | bool | float) -> None:
    key = text(name, "parameter name")
    if isinstance(value, str):
        error = library.InferenceRequestSetStringParameter(pointer, key, text(value, f"parameter {name}"))
    elif isinstance(value, bool):  # before int: a bool is an int
        error = library.InferenceRequestSetBoolParameter(pointer, key, value)
    elif isinstance(value, int):
        if not -(1 << 63) <= value < 1 << 63:
            raise InvalidArgumentError(f"parameter {name} must fit in 64 bits, got {value}")
        error = library.InferenceRequestSetIntParameter(pointer, key, value)
    elif isinstance(value, float):
        error = library.InferenceRequestSetDoubleParameter(pointer, key, value)
    else:
        raise InvalidArgumentError(f"Unsupported Value. Can't convert {type(value)} to Request Parameter ({name})")
    check(error)

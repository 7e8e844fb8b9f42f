"""Requests that Triton holds at the moment: their memory, and the callbacks through which Triton answers.

The callbacks run on Triton's threads. They never raise, and they find what they need by a number instead of
a pointer to a Python object, so a late or repeated callback finds nothing rather than freed memory.
"""

from __future__ import annotations

import ctypes
import itertools
import logging
from collections.abc import Callable
from ctypes import c_void_p
from typing import TYPE_CHECKING, Any

from .capi import AllocFn, QueryFn, RequestReleaseFn, ResponseFn, api, check, immortal, new_error
from .datatypes import MemoryType, RequestReleaseFlag, ResponseCompleteFlag
from .errors import InternalError
from .memory import DEFAULT_PLACEMENT, MemoryBuffer, OutputPlacement
from .reading import read_response
from .tensor import Tensor

if TYPE_CHECKING:
    from .response import InferenceResponse

_log = logging.getLogger(__name__)
_numbers = itertools.count(1)
_flights: dict[int, Flight] = {}

_MEMORY_TYPES = tuple(MemoryType)


class Flight:
    """One request between its submission and the later of its release and its final response."""

    __slots__ = (
        "buffers",
        "deliver",
        "final",
        "inputs",
        "model_of",
        "number",
        "placement",
        "pointer",
        "released",
        "request_id",
        "server",
    )

    def __init__(
        self,
        server: Any,
        pointer: int,
        request_id: str | None,
        inputs: list[Tensor],
        placement: OutputPlacement,
        deliver: Callable[[InferenceResponse], None],
        model_of: Callable[[str, int], Any],
    ) -> None:
        self.server, self.pointer, self.request_id = server, pointer, request_id
        self.inputs, self.placement = inputs, placement
        self.deliver: Any = deliver
        self.model_of: Any = model_of
        self.buffers: dict[int, MemoryBuffer] = {}
        self.final = self.released = False
        self.number = next(_numbers)

    def cancel(self) -> None:
        """Ask Triton to give the request up; nothing happens when it has been released already."""
        # Releasing needs the GIL, which this call keeps: the request can't vanish in between.
        if not self.released:
            check(api().InferenceRequestCancel(self.pointer))

    def forget(self) -> None:
        """Drop a request that is over, that Triton never took, or whose server is gone."""
        _flights.pop(self.number, None)
        self.inputs = []
        self.buffers.clear()
        # The iterator refers to its flight: without this its server would live until the next collection.
        self.server = self.deliver = self.model_of = None


def register(flight: Flight) -> None:
    """Arm the callbacks of a request; from now on it must be submitted or forgotten."""
    _flights[flight.number] = flight
    library = api()
    try:
        check(library.InferenceRequestSetReleaseCallback(flight.pointer, _on_release, flight.number))
        check(
            library.InferenceRequestSetResponseCallback(
                flight.pointer, _allocator(), flight.number, _on_response, flight.number
            )
        )
    except BaseException:
        flight.forget()
        raise


def flights_of(server: Any) -> list[Flight]:
    return [flight for flight in list(_flights.values()) if flight.server is server]


def count() -> int:
    """How many requests are held; 0 when everything has come back."""
    return len(_flights)


def _discard_if_done(flight: Flight) -> None:
    if flight.final and flight.released:
        flight.forget()


@immortal
@RequestReleaseFn
def _on_release(pointer: int, flags: int, number: int) -> None:
    try:
        if not flags & RequestReleaseFlag.ALL:
            return
        flight = _flights.get(number)
        if flight is not None:
            flight.released = True
        api().InferenceRequestDelete(pointer)
        if flight is not None:
            flight.inputs = []
            _discard_if_done(flight)
    except BaseException:
        _log.exception("request release callback failed")


@immortal
@AllocFn
def _on_alloc(
    _allocator: int,
    name: bytes,
    size: int,
    memory_type: int,
    memory_type_id: int,
    number: int,
    buffer_out: Any,
    user_out: Any,
    type_out: Any,
    id_out: Any,
) -> int | None:
    try:
        flight = _flights[number]
        buffer = flight.placement.allocate(size, _MEMORY_TYPES[memory_type], memory_type_id, name.decode())
        if buffer.size < size:
            raise InternalError(f"allocator gave {buffer.size} bytes for {name.decode()}, {size} were asked for")
        flight.buffers[buffer.data_ptr] = buffer
        buffer_out[0] = buffer.data_ptr
        user_out[0] = None
        type_out[0] = buffer.memory_type
        id_out[0] = buffer.memory_type_id
    except BaseException as error:
        return new_error(error)
    return None


@immortal
@QueryFn
def _on_query(_allocator: int, number: int, _name: bytes, _size: Any, type_io: Any, id_io: Any) -> int | None:
    try:
        placement = _flights[number].placement
        if placement is not DEFAULT_PLACEMENT:
            type_io[0], id_io[0] = placement.prefer(_MEMORY_TYPES[type_io[0]], id_io[0])
    except BaseException as error:
        return new_error(error)
    return None


@immortal
@ResponseFn
def _on_response(response: int | None, flags: int, number: int) -> None:
    flight, final = _flights.get(number), bool(flags & ResponseCompleteFlag.FINAL)
    try:
        try:
            result = read_response(flight, response, final) if flight is not None else None
        finally:
            if response:
                api().InferenceResponseDelete(response)
        if flight is not None:
            flight.deliver(result)
    except BaseException:
        _log.exception("response callback failed")
    if flight is not None and final:
        flight.final = True
        _discard_if_done(flight)


# Triton may give an output buffer back on one of its threads at any time, also while the interpreter is going
# down, so this is no Python: a function of libc that ignores its arguments and returns 0. There is nothing to
# do, because reference counting frees the memory.
_RELEASE_NOTHING = ctypes.cast(ctypes.CDLL(None).pthread_getconcurrency, c_void_p)

_response_allocator: int | None = None


def _allocator() -> int:
    """The one response allocator of the process."""
    global _response_allocator
    if _response_allocator is None:
        pointer = c_void_p()
        check(api().ResponseAllocatorNew(pointer, _on_alloc, _RELEASE_NOTHING, None))
        check(api().ResponseAllocatorSetQueryFunction(pointer, _on_query))
        _response_allocator = pointer.value
    assert _response_allocator is not None
    return _response_allocator

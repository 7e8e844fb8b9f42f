"""Inferences in progress: the memory they use, and the callbacks through which Triton answers them.

The callbacks run on Triton's threads. They never raise, and they find an inference by its number instead of
a pointer to a Python object, so a late or repeated callback finds nothing rather than freed memory.
"""

from __future__ import annotations

import ctypes
import itertools
import logging
import os
import threading
from collections.abc import Callable
from ctypes import c_void_p
from typing import Any

from .capi import AllocFn, QueryFn, RequestReleaseFn, ResponseFn, api, check, new_error
from .datatypes import MemoryType, RequestReleaseFlag, ResponseCompleteFlag
from .errors import InternalError
from .memory import DEFAULT_PLACEMENT, MemoryBuffer, OutputPlacement
from .request import ModelName
from .response import InferenceResponse, read_response
from .tensor import Tensor
from .threads import on_tritons_thread

_LOST_STUB = "is not healthy"  # the Python backend's message for a stub that died

_log = logging.getLogger(__name__)
_numbers = itertools.count(1)
_inferences: dict[int, Inference] = {}

_MEMORY_TYPES = tuple(MemoryType)


class InferenceGroup:
    """The inferences in progress of one server."""

    __slots__ = ("lost_stub", "members")

    def __init__(self) -> None:
        self.members: dict[int, Inference] = {}
        self.lost_stub = False

    def end(self, error: Exception) -> None:
        """Answer every inference that has no final response with an error."""
        for inference in list(self.members.values()):
            inference.fail(error)
            inference.forget_if_done()


class Inference:
    """One request from its submission until it is released and its final response has come."""

    __slots__ = (
        "buffers",
        "deliver",
        "final",
        "group",
        "inputs",
        "lock",
        "model_of",
        "number",
        "placement",
        "pointer",
        "released",
        "request_id",
    )

    def __init__(
        self,
        group: InferenceGroup,
        pointer: int,
        request_id: str | None,
        inputs: list[Tensor],
        placement: OutputPlacement,
        deliver: Callable[[InferenceResponse], None],
        model_of: Callable[[str, int], ModelName],
    ) -> None:
        self.group, self.pointer, self.request_id = group, pointer, request_id
        self.inputs, self.placement = inputs, placement
        self.deliver: Any = deliver
        self.model_of: Any = model_of
        self.buffers: dict[int, MemoryBuffer] = {}
        self.final = self.released = False
        self.number = next(_numbers)
        # Triton's threads answer and release while others cancel or stop the server. Reentrant, because the collector
        # may close a generator that cancels this inference.
        self.lock = threading.RLock()

    def register(self) -> None:
        """Set the callbacks of the request; after this it must be submitted or forgotten."""
        _inferences[self.number] = self.group.members[self.number] = self
        library = api()
        try:
            check(library.InferenceRequestSetReleaseCallback(self.pointer, _on_release, self.number))
            check(
                library.InferenceRequestSetResponseCallback(
                    self.pointer, _allocator(self.placement), self.number, _on_response, self.number
                )
            )
        except BaseException:
            self.forget()
            raise

    def read(self, response: int | None, final: bool) -> InferenceResponse | None:
        """A response of the C API; None after the final one."""
        model_of = self.model_of
        if self.final or model_of is None:
            return None
        result = read_response(response, model_of, self.request_id or "", self.buffers, final)
        if result.error is not None and _LOST_STUB in str(result.error):
            self.group.lost_stub = True
        return result

    def answer(self, response: InferenceResponse) -> None:
        """Deliver a response, unless the final one has been delivered."""
        with self.lock:
            if not self.final:
                self.final = response.final
                self.deliver(response)

    def fail(self, error: Exception) -> None:
        """Make an error the final response, unless there is one."""
        with self.lock:
            if not self.final:
                self.final = True
                self.deliver(InferenceResponse(self.model_of("", -1), self.request_id or "", error=error, final=True))

    def cancel(self) -> None:
        """Ask Triton to cancel the request; does nothing after its release."""
        with self.lock:
            if not self.released:
                check(api().InferenceRequestCancel(self.pointer))

    def release(self) -> None:
        """Delete the request, which Triton has returned or refused."""
        with self.lock:
            self.released = True
            api().InferenceRequestDelete(self.pointer)
            self.inputs = []

    def forget(self) -> None:
        """Drop an inference that is over, that Triton refused, or whose server is gone."""
        _inferences.pop(self.number, None)
        self.group.members.pop(self.number, None)
        with self.lock:
            self.final = True
            self.inputs = []
            self.buffers.clear()
            # The iterator refers to its inference: these would keep the server alive until the next collection.
            self.deliver = self.model_of = None

    def forget_if_done(self) -> None:
        if self.final and self.released:
            self.forget()


def count() -> int:
    """How many inferences are in progress in this process."""
    return len(_inferences)


@on_tritons_thread(RequestReleaseFn)
def _on_release(pointer: int, flags: int, number: int) -> None:
    try:
        if not flags & RequestReleaseFlag.ALL:
            return
        inference = _inferences.get(number)
        if inference is None:
            api().InferenceRequestDelete(pointer)
        else:
            inference.release()
            inference.forget_if_done()
    except BaseException:
        _log.exception("request release callback failed")


@on_tritons_thread(AllocFn)
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
        inference = _inferences.get(number)
        if inference is None:
            raise InternalError("the request is over")
        buffer = inference.placement.allocate(size, _MEMORY_TYPES[memory_type], memory_type_id, name.decode())
        if buffer.size < size:
            raise InternalError(f"the allocator returned {buffer.size} bytes for {name.decode()}, which needs {size}")
        inference.buffers[buffer.data_ptr] = buffer
        buffer_out[0] = buffer.data_ptr
        user_out[0] = None
        type_out[0] = buffer.memory_type
        id_out[0] = buffer.memory_type_id
    except BaseException as error:
        return new_error(error)
    return None


@on_tritons_thread(QueryFn)
def _on_query(_allocator: int, number: int, _name: bytes, _size: Any, type_io: Any, id_io: Any) -> int | None:
    try:
        type_io[0], id_io[0] = _inferences[number].placement.prefer(_MEMORY_TYPES[type_io[0]], id_io[0])
    except BaseException as error:
        return new_error(error)
    return None


@on_tritons_thread(ResponseFn)
def _on_response(response: int | None, flags: int, number: int) -> None:
    inference = _inferences.get(number)
    try:
        try:
            result = inference.read(response, bool(flags & ResponseCompleteFlag.FINAL)) if inference else None
        finally:
            if response:
                api().InferenceResponseDelete(response)
        if inference and result:
            inference.answer(result)
    except BaseException:
        _log.exception("response callback failed")
    if inference:
        inference.forget_if_done()


# Triton may return an output buffer on one of its threads at any time, also while the interpreter shuts down, so
# this is not Python but a function of libc that ignores its arguments and returns 0. There is nothing to do:
# reference counting frees the memory.
_RELEASE_NOTHING = ctypes.cast(ctypes.CDLL(None).pthread_getconcurrency, c_void_p)

_HAS_GPU = os.path.exists("/dev/nvidiactl")
_allocators: dict[bool, int] = {}


def _allocator(placement: OutputPlacement) -> int:
    """One of the process's two: where all memory is the host's, Triton need not ask where outputs may be."""
    asks = _HAS_GPU or placement is not DEFAULT_PLACEMENT
    if asks not in _allocators:
        pointer = c_void_p()
        check(api().ResponseAllocatorNew(pointer, _on_alloc, _RELEASE_NOTHING, None))
        if asks:
            check(api().ResponseAllocatorSetQueryFunction(pointer, _on_query))
        assert pointer.value is not None
        _allocators[asks] = pointer.value
    return _allocators[asks]

"""Inference responses, and the iterators through which a thread or a coroutine receives them."""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .tensor import Tensor

if TYPE_CHECKING:
    from .flight import Flight
    from .model import Model


@dataclass(slots=True)
class InferenceResponse:
    """One response to a request; a decoupled model gives many, of which the last is `final`."""

    model: Model
    request_id: str | None = None
    parameters: dict[str, str | int | bool | float] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)
    error: Exception | None = None
    classification_label: str | None = None
    final: bool = False


class _Cancellable:
    """What both iterators share: the request they belong to."""

    def __init__(self, raise_on_error: bool) -> None:
        self._raise_on_error = raise_on_error
        self._complete = False
        self._flight: Flight | None = None

    def cancel(self) -> None:
        """Ask Triton to give the request up; it may still answer when it was nearly done."""
        if self._flight is not None:
            self._flight.cancel()

    def _checked(self, response: InferenceResponse) -> InferenceResponse:
        self._complete = response.final
        if response.error is not None and self._raise_on_error:
            raise response.error
        return response


class ResponseIterator(_Cancellable):
    """The responses of one request, in order; `next` waits for the next one."""

    def __init__(self, user_queue: queue.SimpleQueue[Any] | None, raise_on_error: bool) -> None:
        super().__init__(raise_on_error)
        self._queue: queue.SimpleQueue[InferenceResponse] = queue.SimpleQueue()
        self._user_queue = user_queue

    def __iter__(self) -> ResponseIterator:
        return self

    def __next__(self) -> InferenceResponse:
        if self._complete:
            raise StopIteration
        return self._checked(self._queue.get())

    def _deliver(self, response: InferenceResponse) -> None:
        """Called on Triton's threads."""
        self._queue.put(response)
        if self._user_queue is not None:
            self._user_queue.put(response)


class AsyncResponseIterator(_Cancellable):
    """The responses of one request for the event loop that sent it."""

    def __init__(
        self,
        user_queue: asyncio.Queue[Any] | None,
        raise_on_error: bool,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(raise_on_error)
        self._loop = loop
        self._queue: asyncio.Queue[InferenceResponse] = asyncio.Queue()
        self._user_queue = user_queue
        self._backlog: deque[InferenceResponse] = deque()
        self._pump: asyncio.Task[None] | None = None

    def __aiter__(self) -> AsyncResponseIterator:
        return self

    async def __anext__(self) -> InferenceResponse:
        if self._complete:
            raise StopAsyncIteration
        return self._checked(await self._queue.get())

    def _deliver(self, response: InferenceResponse) -> None:
        """Called on Triton's threads; a loop that is closed has nobody left to tell."""
        try:
            self._loop.call_soon_threadsafe(self._receive, response)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _receive(self, response: InferenceResponse) -> None:
        self._queue.put_nowait(response)
        target = self._user_queue
        if target is None:
            return
        if self._pump is None and not target.full():
            target.put_nowait(response)
            return
        # A full queue of the user must neither lose a response nor change their order.
        self._backlog.append(response)
        if self._pump is None:
            self._pump = self._loop.create_task(self._drain_backlog(target))

    async def _drain_backlog(self, target: asyncio.Queue[Any]) -> None:
        while self._backlog:
            await target.put(self._backlog.popleft())
        self._pump = None

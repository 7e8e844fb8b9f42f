"""The iterators through which a thread or a coroutine receives the responses to one request."""

from __future__ import annotations

import asyncio
import queue
from collections import deque
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from .response import InferenceResponse


class Inbox:
    """Calls into an event loop from Triton's threads: however many come while it is busy, it is woken once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._woken = False

    def post(self, function: Callable[..., object], *arguments: Any) -> None:
        """Called on any thread; what comes for a closed loop is dropped."""
        self._calls.append((function, arguments))
        if self._woken:
            return
        self._woken = True
        try:
            self._loop.call_soon_threadsafe(self._empty)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def _empty(self) -> None:
        self._woken = False  # first: what comes from here on wakes it again
        while self._calls:
            function, arguments = self._calls.popleft()
            function(*arguments)


_inboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, Inbox] = WeakKeyDictionary()


def inbox_of(loop: asyncio.AbstractEventLoop) -> Inbox:
    """The loop's own; only the loop itself may ask for it."""
    inbox = _inboxes.get(loop)
    if inbox is None:
        inbox = _inboxes[loop] = Inbox(loop)
    return inbox


class _Cancellable:
    """What both iterators share."""

    def __init__(self, raise_on_error: bool) -> None:
        self._raise_on_error = raise_on_error
        self._complete = False
        self._cancel: Callable[[], None] | None = None

    def cancel(self) -> None:
        """Ask Triton to cancel the request; one that is nearly done may still be answered."""
        if self._cancel is not None:
            self._cancel()

    def _checked(self, response: InferenceResponse) -> InferenceResponse:
        self._complete = response.final
        if response.error is not None and self._raise_on_error:
            raise response.error
        return response


class ResponseIterator(_Cancellable):
    """The responses to one request, in order; `next` waits for the next one."""

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
    """The responses to one request for the event loop that sent it."""

    def __init__(
        self,
        user_queue: asyncio.Queue[Any] | None,
        raise_on_error: bool,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(raise_on_error)
        self._loop, self._inbox = loop, inbox_of(loop)
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
        """Called on Triton's threads."""
        self._inbox.post(self._receive, response)

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

"""A deployment in the router's own process: a request takes one hop, and needs no handle and no pickles."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from typing import Any

from serve_app.errors import ReplicaKilledError, ReplicaLostError
from serve_app.router.upstream import END, Upstream
from serve_app.types import until

WORK = frozenset({"detect", "infer", "stream"})  # what waits for its turn; metadata and control never do
LOST = (ReplicaKilledError, ReplicaLostError)


@dataclass(frozen=True, slots=True)
class Hosted:
    """What a router holds: the class of a deployment, its arguments, and how much it works on at a time."""

    name: str
    kind: type[Any]
    arguments: tuple[Any, ...]
    max_ongoing_requests: int

    async def start(self) -> Any:
        """Made as Serve makes a replica's object: the constructor may be asynchronous."""
        replica = object.__new__(self.kind)
        await replica.__init__(*self.arguments)
        return replica


class HostedUpstream(Upstream):
    """The replica of this process first; the handle reaches those of the other routers.

    They answer what belongs to all replicas, sequences, which belong to one of them, and what this one has lost.
    """

    def __init__(self, hosted: Hosted, replica: Any, handle: Any) -> None:
        super().__init__(hosted.name, handle)
        self._replica = replica
        self._turn = asyncio.Semaphore(hosted.max_ongoing_requests)

    async def _start(self, method: str, session: str, arguments: tuple[Any, ...], again: bool) -> Any:
        if session or again:
            return await super()._start(method, session, arguments, again)
        async with self._turn if method in WORK else nullcontext():
            answer = getattr(self._replica, method)(*arguments)
            return await answer if asyncio.iscoroutine(answer) else answer

    async def stream(
        self,
        method: str,
        *arguments: Any,
        deadline: float | None = None,
        session: str = "",
        adapter: str = "",
        retry: bool = True,
    ) -> AsyncGenerator[Any]:
        begun = False
        if not session:
            try:
                async with aclosing(self._stream_here(method, arguments, deadline)) as answers:
                    async for answer in answers:
                        begun = True
                        yield answer
                return
            except LOST:
                if begun or not retry:
                    raise
        others = super().stream(method, *arguments, deadline=deadline, session=session, retry=retry)
        async with aclosing(others):
            async for answer in others:
                yield answer

    async def _stream_here(
        self, method: str, arguments: tuple[Any, ...], deadline: float | None
    ) -> AsyncGenerator[Any]:
        late = f"{self.name} had not finished before the deadline"
        async with until(deadline, late):
            await self._turn.acquire()
        try:
            async with aclosing(getattr(self._replica, method)(*arguments)) as answers:
                while True:
                    async with until(deadline, late):
                        answer = await anext(answers, END)
                    if answer is END:
                        return
                    yield answer
        finally:
            self._turn.release()

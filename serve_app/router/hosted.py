"""A deployment in the router's own process: a request takes one hop, and needs no handle and no pickles."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from typing import Any

from serve_app.router.upstream import Upstream

WORK = frozenset({"detect", "infer"})  # what waits for its turn, as streams do; metadata and control never do


@dataclass(frozen=True, slots=True)
class Hosted:
    """What a router holds: the class of a deployment, its arguments, and how much it works on at a time."""

    name: str
    kind: type[Any]
    arguments: tuple[Any, ...]
    max_ongoing_requests: int
    options: Mapping[str, Any] = field(default_factory=dict)  # of the constructor

    async def start(self) -> Any:
        """Made as Serve makes a replica's object: the constructor may be asynchronous."""
        replica = object.__new__(self.kind)
        await replica.__init__(*self.arguments, **self.options)
        return replica


class HostedUpstream(Upstream):
    """The replica of this process first; the handle reaches those of the other routers.

    They answer what belongs to all replicas, sequences, which belong to one of them, adapters, which Serve places, and
    what this one has lost.
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

    def _open(self, method: str, arguments: tuple[Any, ...], options: dict[str, str], again: bool) -> Any:
        if options["session_id"] or options["multiplexed_model_id"] or again:
            return super()._open(method, arguments, options, again)
        return self._stream_here(method, arguments)

    async def _stream_here(self, method: str, arguments: tuple[Any, ...]) -> AsyncGenerator[Any]:
        async with self._turn, aclosing(getattr(self._replica, method)(*arguments)) as answers:
            async for answer in answers:
                yield answer

    async def _close(self, stream: Any) -> None:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()
        else:
            await super()._close(stream)

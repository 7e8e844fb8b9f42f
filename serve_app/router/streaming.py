"""Streaming answers that stop their source when the client leaves."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class Stream(StreamingResponse):
    """Closes its source as soon as the client has left, rather than when it is garbage-collected."""

    def __init__(
        self, pieces: AsyncGenerator[str | bytes], source: AsyncGenerator[Any], status: int = 200, **options: Any
    ) -> None:
        super().__init__(pieces, status, **options)
        self._generators = (source, pieces)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        source, pieces = self._generators
        async with aclosing(source), aclosing(pieces):
            await super().__call__(scope, receive, send)


class EventStream(Stream):
    """Server-sent events."""

    def __init__(self, events: AsyncGenerator[str | bytes], source: AsyncGenerator[Any]) -> None:
        super().__init__(events, source, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})

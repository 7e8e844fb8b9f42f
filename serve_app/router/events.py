"""Server-sent events on their way out."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class EventStream(StreamingResponse):
    """Ends its source the moment the client has left, not when Python collects it."""

    def __init__(self, events: AsyncGenerator[str | bytes], source: AsyncGenerator[Any]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._generators = (source, events)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        source, events = self._generators
        async with aclosing(source), aclosing(events):
            await super().__call__(scope, receive, send)

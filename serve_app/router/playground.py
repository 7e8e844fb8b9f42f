"""The playground at /ui, passed on to the one replica that has its page and its visitors' sessions."""

# By hand: a handle can stream what a method yields, but the call that Serve's own proxy makes of an ASGI application
# needs to be called back for the body, and is private to Serve.

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Message, Receive, Scope, Send

from serve_app.errors import UnavailableError
from serve_app.router.events import Stream
from serve_app.router.upstream import Upstream

PATH = "/ui"
VISITS = 64
# What a page can know of a request. Host and X-Forwarded-… are among the headers: by them it finds its own address.
PASSED_ON = (
    "type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "headers", "client", "server",
)  # fmt: skip


class Playground:
    """No timeout and no count: what the page asks of the service counts there, as anybody's requests do.

    Its visitors take no more than VISITS of a router's requests, so that they don't stand in the way of others.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._room = asyncio.Semaphore(VISITS)

    def routes(self) -> list[BaseRoute]:
        return [Route(PATH, self.enter), Mount(PATH, self.pass_on)]

    async def enter(self, _request: Request) -> Response:
        """Relative, for whatever stands before this path where it is seen from."""
        return RedirectResponse("ui/")

    async def pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._room.locked():
            raise UnavailableError("the playground has too many visitors; try again")
        async with self._room:
            response = await self._answer(Request(scope, receive))
            await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        asked = {name: request.scope[name] for name in PASSED_ON if name in request.scope}
        messages = self._upstream.stream("respond", asked, await request.body())
        head = await anext(messages)
        response = Stream(_bodies(messages), messages, head["status"])
        response.raw_headers = list(head["headers"])
        return response


async def _bodies(messages: AsyncGenerator[Message | Any]) -> AsyncGenerator[bytes]:
    async for message in messages:
        yield message.get("body", b"")

"""The playground at /ui, forwarded to the one replica that has its page and its visitors' sessions."""

# By hand: a handle streams what a method yields, but Serve's own way of calling an ASGI application through a handle
# needs a callback for the body, and is private to Serve.

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import Message, Receive, Scope, Send

from serve_app.errors import UnavailableError
from serve_app.router.streaming import Stream
from serve_app.router.upstream import Upstream

PATH = "/ui"
VISITS = 64
# The page finds its own address by the headers Host and X-Forwarded-….
FORWARDED = (
    "type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "headers", "client", "server",
)  # fmt: skip


class Playground:
    """Its requests have no timeout and are not counted: what the page asks of the service is counted there.

    Visitors take no more than VISITS of a router's requests, so that they don't crowd out others.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._visits = asyncio.Semaphore(VISITS)

    def routes(self) -> list[BaseRoute]:
        return [Route(PATH, self.enter), Mount(PATH, self.forward)]

    async def enter(self, _request: Request) -> Response:
        """A relative redirect, so that it works behind any prefix."""
        return RedirectResponse("ui/")

    async def forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._visits.locked():
            raise UnavailableError("the playground has too many visitors; try again later")
        async with self._visits:
            response = await self._answer(Request(scope, receive))
            await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        scope = {name: request.scope[name] for name in FORWARDED if name in request.scope}
        messages = self._upstream.stream("respond", scope, await request.body())
        head = await anext(messages)
        response = Stream(_bodies(messages), messages, head["status"])
        response.raw_headers = list(head["headers"])
        return response


async def _bodies(messages: AsyncGenerator[Message | Any]) -> AsyncGenerator[bytes]:
    async for message in messages:
        yield message.get("body", b"")

"""The Ray Serve deployment of the playground: the page, in the one process where its sessions live."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.types import Message, Scope

from serve_app.errors import UnavailableError
from serve_app.settings import PlaygroundSettings
from serve_app.telemetry.logging import keep_contents_out
from serve_app.ui.driving import drive

logger = logging.getLogger("ray.serve")
LOOK_INTERVAL_S = 1.0
LOOK_TIMEOUT_S = 5.0


class PlaygroundReplica:
    """Makes its page when the service is up, or when somebody asks for it before: five seconds of a processor."""

    async def __init__(self, settings: PlaygroundSettings) -> None:  # type: ignore[misc]
        keep_contents_out()
        self._url = settings.service_url
        self._asked = asyncio.Event()
        self._lifetime = AsyncExitStack()
        self._making = asyncio.create_task(self._make())

    async def _make(self) -> Starlette:
        await self._until_wanted()
        try:
            page = await asyncio.to_thread(_build, self._url)
            await self._lifetime.enter_async_context(page.router.lifespan_context(page))
        except Exception:
            logger.exception("the playground can't be shown")
            raise
        return page

    async def _until_wanted(self) -> None:
        """What the start of models needs of the processor is not taken from them."""
        async with httpx.AsyncClient(base_url=self._url, timeout=LOOK_TIMEOUT_S) as client:
            while not self._asked.is_set():
                with suppress(httpx.HTTPError, ValueError):
                    if all_else_is_up((await client.get("/health")).json()):
                        return
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._asked.wait(), LOOK_INTERVAL_S)

    async def respond(self, scope: Scope, body: bytes) -> AsyncGenerator[Message]:
        """The answer of the page's application to one request."""
        self._asked.set()
        await asyncio.wait({self._making})
        async for message in drive(self._page(), scope, body):
            yield message

    def describe(self) -> dict[str, Any]:
        """Answers once the page is there."""
        self._page()
        return {}

    def _page(self) -> Starlette:
        if not self._making.done():
            raise UnavailableError("the playground's page is not there yet")
        if self._making.cancelled() or self._making.exception():
            raise UnavailableError("the playground can't be shown; its log in Ray says why")
        return self._making.result()

    async def __del__(self) -> None:
        """Serve calls this at the end; what visitors uploaded goes with the page."""
        if making := getattr(self, "_making", None):
            making.cancel()
            await self._lifetime.aclose()


def all_else_is_up(health: dict[str, Any]) -> bool:
    """Language models too, which nothing else waits for."""
    others = [there for name, there in health.get("deployments", {}).items() if name != "playground"]
    return bool(others) and all(others)


def _build(service_url: str) -> Starlette:
    from serve_app.ui.page import build_page  # Gradio, in this process only and not before it is wanted

    return build_page(service_url)

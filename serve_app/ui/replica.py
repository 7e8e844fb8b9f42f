"""The playground's replica: it builds the page and answers its requests; there is one, as it holds all sessions."""

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
from serve_app.telemetry.replica import begin_replica
from serve_app.ui.asgi import stream_response

logger = logging.getLogger("ray.serve")
POLL_INTERVAL_S = 1.0
POLL_TIMEOUT_S = 5.0


class PlaygroundReplica:
    """Builds the page, which takes five seconds of a processor, when the service is ready or on the first request."""

    async def __init__(self, settings: PlaygroundSettings) -> None:  # type: ignore[misc]
        begin_replica()
        self._url = settings.service_url
        self._requested = asyncio.Event()
        self._lifetime = AsyncExitStack()
        self._building = asyncio.create_task(self._build())

    async def _build(self) -> Starlette:
        await self._wait_until_needed()
        try:
            page = await asyncio.to_thread(_build_page, self._url)
            await self._lifetime.enter_async_context(page.router.lifespan_context(page))
        except Exception:
            logger.exception("building the playground page failed")
            raise
        return page

    async def _wait_until_needed(self) -> None:
        """Leave the processor to models that are starting."""
        async with httpx.AsyncClient(base_url=self._url, timeout=POLL_TIMEOUT_S) as client:
            while not self._requested.is_set():
                with suppress(httpx.HTTPError, ValueError):
                    if others_are_ready((await client.get("/health")).json()):
                        return
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._requested.wait(), POLL_INTERVAL_S)

    async def respond(self, scope: Scope, body: bytes) -> AsyncGenerator[Message]:
        """The page's answer to one request."""
        self._requested.set()
        await asyncio.wait({self._building})
        async for message in stream_response(self._page(), scope, body):
            yield message

    def describe(self) -> dict[str, Any]:
        """Fails until the page is built."""
        self._page()
        return {}

    def _page(self) -> Starlette:
        if not self._building.done():
            raise UnavailableError("the playground page is not built yet; try again in a few seconds")
        if self._building.cancelled() or self._building.exception():
            raise UnavailableError("the playground page could not be built; see the log of its replica in Ray")
        return self._building.result()

    async def __del__(self) -> None:
        """Called by Serve at the end; closing the page deletes what visitors uploaded."""
        if building := getattr(self, "_building", None):
            building.cancel()
            await self._lifetime.aclose()


def others_are_ready(health: dict[str, Any]) -> bool:
    """Including language models, which the service's own readiness doesn't wait for."""
    others = [ready for name, ready in health.get("deployments", {}).items() if name != "playground"]
    return bool(others) and all(others)


def _build_page(service_url: str) -> Starlette:
    from serve_app.ui.page import build_page  # imports Gradio, which takes seconds

    return build_page(service_url)

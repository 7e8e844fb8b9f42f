"""One request to an ASGI application in this process: what it sends, as it sends it."""

import asyncio
from collections.abc import AsyncGenerator

from starlette.types import ASGIApp, Message, Scope

# Under this version Starlette's streams listen for a client who leaves, and end.
ASGI = {"asgi": {"version": "3.0", "spec_version": "2.3"}, "root_path": ""}
WAITING = 16  # messages that an application may be ahead of its reader
FAREWELL_S = 1.0  # how long it may take to end by itself once its client has left


async def drive(app: ASGIApp, scope: Scope, body: bytes) -> AsyncGenerator[Message]:
    """The head, then pieces of the body; whoever stops reading is a client who has left."""
    sent: asyncio.Queue[Message | None] = asyncio.Queue(WAITING)
    left = asyncio.Event()
    asked = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Message:
        if message := next(asked, None):
            return message
        await left.wait()
        return {"type": "http.disconnect"}

    async def run() -> None:
        try:
            await app({**scope, **ASGI}, receive, sent.put)
        finally:
            if not left.is_set():  # else nobody would make room for it
                await sent.put(None)

    running = asyncio.create_task(run())
    try:
        while message := await sent.get():
            yield message
        await running
    finally:
        left.set()
        await asyncio.wait({running}, timeout=0 if sent.full() else FAREWELL_S)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

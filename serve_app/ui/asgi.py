"""Call an ASGI application in this process and stream what it answers."""

import asyncio
from collections.abc import AsyncGenerator

from starlette.types import ASGIApp, Message, Scope

# Under this version Starlette's streams end when the client disconnects.
ASGI = {"asgi": {"version": "3.0", "spec_version": "2.3"}, "root_path": ""}
MAX_QUEUED = 16  # messages that the application may send ahead of its reader
DISCONNECT_TIMEOUT_S = 1.0  # how long the application may take to end after its client has disconnected


async def stream_response(app: ASGIApp, scope: Scope, body: bytes) -> AsyncGenerator[Message]:
    """The start of the response, then pieces of its body; closing the generator disconnects the client."""
    sent: asyncio.Queue[Message | None] = asyncio.Queue(MAX_QUEUED)
    disconnected = asyncio.Event()
    requests = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Message:
        if message := next(requests, None):
            return message
        await disconnected.wait()
        return {"type": "http.disconnect"}

    async def run() -> None:
        try:
            await app({**scope, **ASGI}, receive, sent.put)
        finally:
            if not disconnected.is_set():  # else nobody reads, and the queue may stay full
                await sent.put(None)

    running = asyncio.create_task(run())
    try:
        while message := await sent.get():
            yield message
        await running
    finally:
        disconnected.set()
        await asyncio.wait({running}, timeout=0 if sent.full() else DISCONNECT_TIMEOUT_S)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

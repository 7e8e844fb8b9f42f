"""What every HTTP transport reads of a request, within limits: its deadline and its body."""

import asyncio
import time
import zlib
from collections.abc import Mapping

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.errors import InvalidRequestError, PayloadTooLargeError, UnsupportedError
from serve_app.settings import RouterSettings

DEADLINE_HEADER = "x-request-timeout-s"
MAX_LENGTH_DIGITS = 19
MAX_MEMBERS = 64  # of a gzip body: each costs a copy of all that follows it
LARGE_BYTES = 256 << 10  # larger bodies are inflated and compressed in a thread
# zlib's window bits; 16 more means a gzip header
WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


def deadline_of(headers: Mapping[str, str], settings: RouterSettings) -> float:
    """Unix time. The caller's header counts from now, and can't exceed what the configuration allows."""
    text = headers.get(DEADLINE_HEADER)
    if text is None:
        return time.time() + settings.request_timeout_s
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not seconds > 0:
        raise InvalidRequestError(f"{DEADLINE_HEADER} must be a number of seconds greater than 0, got {text[:40]!r}")
    return time.time() + min(seconds, settings.request_timeout_s)


class LimitBody:
    """Refuses a body over the limit: by its announced length, or at the byte that exceeds the limit."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        excess = announced.isdigit() and (len(announced) > MAX_LENGTH_DIGITS or int(announced) > self._max_bytes)
        received = 0

        async def counted() -> Message:
            nonlocal received
            if excess:
                raise self._refusal()
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._refusal()
            return message

        await self._app(scope, counted, send)

    def _refusal(self) -> PayloadTooLargeError:
        return PayloadTooLargeError(f"the body is larger than the limit of {self._max_bytes} bytes")


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body as it was before compression; the limit holds before and after."""
    body = await request.body()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in WINDOWS:
        raise UnsupportedError(f"Unsupported compression type '{encoding}'; supported: gzip, deflate")
    if len(body) < LARGE_BYTES:
        return _inflate(body, encoding, max_bytes)
    return await asyncio.to_thread(_inflate, body, encoding, max_bytes)


def _inflate(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """A gzip body may have several members, one after the other."""
    inflated: list[bytes] = []
    rest, room = body, max_bytes
    while rest or not inflated:
        if len(inflated) == MAX_MEMBERS:
            raise InvalidRequestError(f"the {encoding} body has more than {MAX_MEMBERS} members")
        inflater = zlib.decompressobj(WINDOWS[encoding])
        try:
            inflated.append(inflater.decompress(rest, room + 1))
        except zlib.error:
            raise InvalidRequestError(f"the body is not valid {encoding} data") from None
        room -= len(inflated[-1])
        if room < 0:
            raise PayloadTooLargeError(f"the inflated body is larger than the limit of {max_bytes} bytes")
        if not inflater.eof:
            raise InvalidRequestError(f"the {encoding} body is incomplete")
        rest = inflater.unused_data
        if rest and encoding != "gzip":
            raise InvalidRequestError(f"{len(rest)} bytes follow the end of the {encoding} body")
    return b"".join(inflated)

"""What every HTTP transport reads of a request, within limits: its deadline and its body."""

import asyncio
import time
import zlib
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.errors import (
    InvalidRequestError,
    PayloadTooLargeError,
    QueueFullError,
    SlowBodyError,
    UnsupportedError,
)
from serve_app.settings import RouterSettings
from serve_app.types.deadlines import left_s

DEADLINE_HEADER = "x-request-timeout-s"
MAX_LENGTH_DIGITS = 19
MAX_MEMBERS = 64  # of a gzip body: each costs a copy of all that follows it
LARGE_BYTES = 256 << 10  # larger bodies are compressed in a thread, and inflated there if they may become larger
MAX_RATIO = 1032  # of a deflated body to what it becomes
MAX_INFLATING = 2
PIECE_BYTES = 64 << 10
GRACE_S = 10.0  # before the rate of a body counts
BODY = "serve_app.body"  # of a scope: its IncomingBody
# zlib's window bits; 16 more means a gzip header
WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


def path_of(scope: Scope) -> str:
    """Without the prefix under which the application is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


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


class HeldBytes:
    """The bodies that this router has in memory."""

    def __init__(self, most: int) -> None:
        self.most, self.count = most, 0
        self.inflating = asyncio.Semaphore(MAX_INFLATING)

    def take(self, size: int) -> None:
        if self.count + size > self.most:
            raise QueueFullError(f"request bodies take {self.count} of the router's {self.most} bytes; try again later")
        self.count += size


class BoundBody:
    """Bodies arrive within a size, at a least rate, before the request's deadline, and while there is room for them."""

    def __init__(self, app: ASGIApp, settings: RouterSettings) -> None:
        self._app = app
        self._settings = settings
        self._held = HeldBytes(settings.max_held_mib << 20)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = IncomingBody(receive, Headers(scope=scope), self._settings, self._held)
        scope[BODY] = body
        try:
            await self._app(scope, body.receive, send)
        finally:
            self._held.count -= body.held


class IncomingBody:
    """The body of one request, as it is read."""

    def __init__(self, receive: Receive, headers: Mapping[str, str], settings: RouterSettings, held: HeldBytes) -> None:
        self._receive, self._all_held = receive, held
        self._max_bytes, self._rate = settings.max_body_mib << 20, settings.body_rate_kib_s * 1024
        try:
            self._deadline = deadline_of(headers, settings)
        except InvalidRequestError:  # whoever handles the request refuses it
            self._deadline = deadline_of({}, settings)
        announced = headers.get("content-length", "0")
        known = announced.isascii() and announced.isdigit()
        self._excess = known and (len(announced) > MAX_LENGTH_DIGITS or int(announced) > self._max_bytes)
        self._announced = int(announced) if known and not self._excess else 0
        self._received = self.held = 0
        self._begun = self._complete = False
        self._slow_at = 0.0

    async def receive(self) -> Message:
        if self._complete:  # the caller waits for the client to leave
            return await self._receive()
        if not self._begun:
            self._begin()
        late = min(self._deadline, self._slow_at + self._received / self._rate)
        try:
            async with asyncio.timeout(max(late - time.time(), 0)):
                message = await self._receive()
        except TimeoutError:
            raise SlowBodyError(
                f"the body arrives too slowly: only {self._received} bytes were received; send at least "
                f"{self._rate / 1024:g} KiB a second, and all of it before the deadline"
            ) from None
        self._received += len(message.get("body", b""))
        if self._received > self._max_bytes:
            raise self._too_large()
        if self._received > self.held:
            self.hold(self._received - self.held)
        self._complete = not message.get("more_body", False)
        return message

    def _begin(self) -> None:
        if self._excess:
            raise self._too_large()
        left_s(self._deadline)
        self.hold(self._announced)
        self._begun, self._slow_at = True, time.time() + GRACE_S

    def hold(self, size: int) -> None:
        """Count more bytes until the request is answered."""
        self._all_held.take(size)
        self.held += size

    @property
    def inflating(self) -> asyncio.Semaphore:
        return self._all_held.inflating

    def _too_large(self) -> PayloadTooLargeError:
        return PayloadTooLargeError(f"the body is larger than the limit of {self._max_bytes} bytes")


async def read_body(request: Request, max_bytes: int) -> bytes | bytearray:
    """The body as it was before compression; the limits hold before and after."""
    body = await request.body()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in WINDOWS:
        raise UnsupportedError(f"Unsupported compression type '{encoding}'; supported: gzip, deflate")
    incoming: IncomingBody = request.scope[BODY]
    async with incoming.inflating:
        if len(body) < LARGE_BYTES // MAX_RATIO:
            inflated = _inflate(body, encoding, max_bytes)
        else:
            inflated = await asyncio.to_thread(_inflate, body, encoding, max_bytes)
        incoming.hold(len(inflated))
    return inflated


def _inflate(body: bytes, encoding: str, max_bytes: int) -> bytearray:
    """A gzip body may have several members, one after the other. Piece by piece, so that other threads go on."""
    inflated, place = bytearray(), 0
    for member in range(MAX_MEMBERS + 1):
        if member == MAX_MEMBERS:
            raise InvalidRequestError(f"the {encoding} body has more than {MAX_MEMBERS} members")
        place = _inflate_member(memoryview(body), place, encoding, inflated, max_bytes)
        if place == len(body):
            break
        if encoding != "gzip":
            raise InvalidRequestError(f"{len(body) - place} bytes follow the end of the {encoding} body")
    return inflated


def _inflate_member(body: memoryview, place: int, encoding: str, inflated: bytearray, max_bytes: int) -> int:
    """Append what a member holds; returns where it ends."""
    inflater = zlib.decompressobj(WINDOWS[encoding])
    while not inflater.eof:
        given: bytes | memoryview = body[place : place + PIECE_BYTES]
        if not given:
            raise InvalidRequestError(f"the {encoding} body is incomplete")
        place += len(given)
        while given and not inflater.eof:
            try:
                inflated += inflater.decompress(given, PIECE_BYTES)
            except zlib.error:
                raise InvalidRequestError(f"the body is not valid {encoding} data") from None
            if len(inflated) > max_bytes:
                raise PayloadTooLargeError(f"the inflated body is larger than the limit of {max_bytes} bytes")
            given = inflater.unconsumed_tail
    return place - len(inflater.unused_data)

"""An HTTP/1.1 client that costs little, so that load isn't what limits: bytes that were made before, and no parser."""

# By hand, because what a client with a parser and pools takes of the processor is taken from the service beside it,
# and wrk can't follow a schedule.

import asyncio
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """`first_s` is when the body's first byte came, by time.perf_counter(); a body in chunks keeps their marks."""

    status: int
    body: bytes
    first_s: float


class Connection(asyncio.Protocol):
    """One request at a time over one connection that is kept."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._waiting: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None
        self._need = -1  # bytes of the whole answer, once they are known
        self._body_at = 0  # once the head is there
        self._first_s = 0.0

    @classmethod
    async def open(cls, url: str) -> "Connection":
        parts = urlsplit(url)
        _, connection = await asyncio.get_running_loop().create_connection(
            cls, parts.hostname or "localhost", parts.port or 80
        )
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    async def ask(self, request: bytes, timeout_s: float) -> Answer:
        assert self._transport is not None
        if self._transport.is_closing():
            raise ConnectionError("the connection was closed")
        self._waiting = asyncio.get_running_loop().create_future()
        self._received.clear()
        self._need, self._body_at, self._first_s = -1, 0, 0.0
        self._transport.write(request)
        return await asyncio.wait_for(self._waiting, timeout_s)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._body_at:
            self._read_head()
        if self._body_at and not self._first_s and len(self._received) > self._body_at:
            self._first_s = time.perf_counter()
        if self._need < 0 and self._body_at and self._received.endswith(LAST_CHUNK):
            self._need = len(self._received)
        if 0 <= self._need <= len(self._received):
            self._finish()

    def _read_head(self) -> None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._received[:end]).lower()
        self._body_at = end + 4
        mark = head.find(b"\r\ncontent-length:")  # not the end of inference-header-content-length
        if mark < 0:
            if b"transfer-encoding: chunked" not in head:
                self._fail(ConnectionError("an answer without Content-Length"))
            return
        stop = head.find(b"\r\n", mark + 2)
        self._need = self._body_at + int(head[mark + 17 : stop if stop > 0 else None])

    def _finish(self) -> None:
        if self._waiting and not self._waiting.done():
            status = int(self._received[9:12])
            body = bytes(self._received[self._body_at : self._need])
            self._waiting.set_result(Answer(status, body, self._first_s or time.perf_counter()))

    def _fail(self, problem: Exception) -> None:
        if self._waiting and not self._waiting.done():
            self._waiting.set_exception(problem)

    def connection_lost(self, problem: Exception | None) -> None:
        self._fail(problem or ConnectionError("the connection was closed"))

    def close(self) -> None:
        if self._transport:
            self._transport.close()


def post(url: str, path: str, body: bytes, content_type: str = "application/octet-stream", **headers: str) -> bytes:
    """The bytes of a request."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body

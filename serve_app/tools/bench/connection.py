"""A minimal HTTP/1.1 client, so that the load generator is not the limit: requests are prepared bytes."""

# Written by hand because the processor time of a full client is taken from the service on the same machine, and wrk
# can't follow a schedule.

import asyncio
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Response:
    """`first_byte_s` is when the body began, by time.perf_counter(); a chunked body keeps its chunk headers."""

    status: int
    body: bytes
    first_byte_s: float


class Connection(asyncio.Protocol):
    """A kept-alive connection with one request at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._response: asyncio.Future[Response] | None = None
        self._transport: asyncio.Transport | None = None
        self._length = -1  # of the whole response, once it is known
        self._body_at = 0  # once the headers are complete
        self._first_byte_s = 0.0

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

    async def send(self, request: bytes, timeout_s: float) -> Response:
        assert self._transport is not None
        if self._transport.is_closing():
            raise ConnectionError("the connection was closed")
        self._response = asyncio.get_running_loop().create_future()
        self._received.clear()
        self._length, self._body_at, self._first_byte_s = -1, 0, 0.0
        self._transport.write(request)
        return await asyncio.wait_for(self._response, timeout_s)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._body_at:
            self._read_headers()
        if self._body_at and not self._first_byte_s and len(self._received) > self._body_at:
            self._first_byte_s = time.perf_counter()
        if self._length < 0 and self._body_at and self._received.endswith(LAST_CHUNK):
            self._length = len(self._received)
        if 0 <= self._length <= len(self._received):
            self._finish()

    def _read_headers(self) -> None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        headers = bytes(self._received[:end]).lower()
        self._body_at = end + 4
        start = headers.find(b"\r\ncontent-length:")  # not the end of inference-header-content-length
        if start < 0:
            if b"transfer-encoding: chunked" not in headers:
                self._fail(ConnectionError("a response without Content-Length"))
            return
        stop = headers.find(b"\r\n", start + 2)
        self._length = self._body_at + int(headers[start + 17 : stop if stop > 0 else None])

    def _finish(self) -> None:
        if self._response and not self._response.done():
            status = int(self._received[9:12])
            body = bytes(self._received[self._body_at : self._length])
            self._response.set_result(Response(status, body, self._first_byte_s or time.perf_counter()))

    def _fail(self, problem: Exception) -> None:
        if self._response and not self._response.done():
            self._response.set_exception(problem)

    def connection_lost(self, problem: Exception | None) -> None:
        self._fail(problem or ConnectionError("the connection was closed"))

    def close(self) -> None:
        if self._transport:
            self._transport.close()


def build_post(
    url: str, path: str, body: bytes, content_type: str = "application/octet-stream", **headers: str
) -> bytes:
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body

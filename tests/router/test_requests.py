"""What every HTTP transport reads of a request, within limits: its deadline, its body and the JSON in it."""

import gzip
import time
import tracemalloc
import zlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from serve_app.errors import InvalidRequestError, PayloadTooLargeError, UnsupportedError
from serve_app.router.errors import HANDLERS
from serve_app.router.requests import DEADLINE_HEADER, LARGE_BYTES, LimitBody, deadline_of, read_body
from serve_app.settings import RouterSettings

SETTINGS = RouterSettings(request_timeout_s=60)
LIMIT = 1000
COMPRESS = {"gzip": lambda data: gzip.compress(data, mtime=0), "deflate": zlib.compress}


def test_the_deadline_header_counts_from_now_up_to_the_configured_timeout(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert deadline_of({}, SETTINGS) == 1060.0
    for text, seconds in {"5": 5, "0.25": 0.25, "1e1": 10, "60": 60, "61": 60, "1e300": 60, "inf": 60}.items():
        assert deadline_of({DEADLINE_HEADER: text}, SETTINGS) == 1000.0 + seconds, text
    assert deadline_of(Headers({"X-Request-Timeout-S": "2"}), SETTINGS) == 1002.0
    for text in ("", "0", "-0.0", "-1", "nan", "-inf", "5s", "0x5", "1,5", "1e-400", "x" * 10_000):
        with pytest.raises(InvalidRequestError) as caught:
            deadline_of({DEADLINE_HEADER: text}, SETTINGS)
        expected = f"{DEADLINE_HEADER} must be a number of seconds greater than 0, got {text[:40]!r}"
        assert caught.value.message == expected


async def count(request):
    return PlainTextResponse(str(len(await request.body())))


async def ignore(_request):
    return PlainTextResponse("unread")


APP = Starlette(
    routes=[Route("/", count, methods=["POST"]), Route("/unread", ignore, methods=["POST"])],
    middleware=[Middleware(LimitBody, max_bytes=10)],
    exception_handlers=HANDLERS,
)
TOO_LARGE = b'{"error":"the body is larger than the limit of 10 bytes"}'


async def post(*chunks, path="/", length=None):
    """Status and body of the answer, and how many of the chunks were read."""
    waiting, sent = list(chunks), []

    async def receive():
        chunk = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

    async def send(message):
        sent.append(message)

    headers = [] if length is None else [(b"content-length", length)]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    await APP(scope, receive, send)
    return sent[0]["status"], b"".join(part.get("body", b"") for part in sent), len(chunks) - len(waiting)


async def test_a_body_up_to_the_limit_passes_and_the_next_request_is_counted_from_zero():
    for size in (0, 1, 10, 10):
        for length in (None, str(size).encode()):
            assert (await post(bytes(size), length=length))[:2] == (200, str(size).encode())
    assert await post(b"abcd", b"efgh", b"ij") == (200, b"10", 3)


async def test_a_body_over_the_limit_is_refused_and_the_rest_is_not_read():
    for length in (b"11", b"9" * 5000):
        assert await post(bytes(5), length=length) == (413, TOO_LARGE, 0), "announced: not read at all"
    assert await post(b"abcd", b"efgh", b"ijk", b"lmn", b"opq") == (413, TOO_LARGE, 3)
    for length in (b"1", b"0", b"", b"-5", b"x", b"1e9"):
        assert (await post(bytes(8), bytes(8), length=length))[:2] == (413, TOO_LARGE), length


async def test_only_http_bodies_that_are_read_are_limited():
    assert (await post(bytes(50), path="/unread"))[:2] == (200, b"unread")
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    await LimitBody(app, 1)({"type": "lifespan"}, "receive", "send")
    assert seen == [({"type": "lifespan"}, "receive", "send")]


async def read(body, encoding=None, limit=LIMIT):
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [] if encoding is None else [(b"content-encoding", encoding.encode("latin-1"))]
    return await read_body(Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive), limit)


async def refusal_of(body, encoding, error=InvalidRequestError):
    with pytest.raises(error) as caught:
        await read(body, encoding)
    return caught.value.message


def random_bytes(size):
    return np.random.default_rng(1).bytes(size)


async def test_a_body_without_compression_stays_as_it_is():
    for encoding in (None, "identity", ""):
        assert await read(b"abc", encoding) == b"abc"


@given(st.lists(st.binary(max_size=LIMIT // 4), min_size=1, max_size=4), st.sampled_from(["gzip", " GZip "]))
async def test_a_gzip_body_is_all_of_its_members(parts, encoding):
    assert await read(b"".join(map(COMPRESS["gzip"], parts)), encoding) == b"".join(parts)


async def test_a_compressed_body_up_to_the_limit_is_inflated_in_a_thread_if_it_is_large():
    for encoding in ("gzip", "deflate", "DEFLATE"):
        for size in (0, 1, LIMIT, 2 * LARGE_BYTES):
            plain = random_bytes(size)
            assert await read(COMPRESS[encoding.lower()](plain), encoding, max(size, LIMIT)) == plain


async def test_a_body_over_the_limit_after_inflation_is_refused_without_inflating_it():
    expected = f"the inflated body is larger than the limit of {LIMIT} bytes"
    for name, compress in COMPRESS.items():
        for size in (LIMIT + 1, 20_000_000):
            body = compress(bytes(size))
            tracemalloc.start()
            assert await refusal_of(body, name, PayloadTooLargeError) == expected
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 2_000_000
    members = gzip.compress(bytes(LIMIT)) + gzip.compress(b"a")
    assert await refusal_of(members, "gzip", PayloadTooLargeError) == expected


async def test_a_compressed_body_that_is_cut_or_damaged_is_refused():
    cases = [(name, COMPRESS[name](random_bytes(500))[:kept], f"the {name} body is incomplete")
             for name in COMPRESS for kept in (0, 1, 10, -9, -1)]  # fmt: skip
    gzipped, deflated, member = COMPRESS["gzip"](b"{}"), zlib.compress(b"{}"), COMPRESS["gzip"](b"def")
    for name, body in (("gzip", b"{}"), ("deflate", b"{}"), ("gzip", deflated), ("deflate", gzipped),
                       ("gzip", gzipped[:-8] + bytes(8)), ("deflate", deflated[:-4] + bytes(4)),
                       ("gzip", gzipped + b"garbage")):  # fmt: skip
        cases.append((name, body, f"the body is not valid {name} data"))
    cases += [("gzip", gzipped + tail, "the gzip body is incomplete") for tail in (b"\0", member[:-1], member[:5])]
    cases += [("deflate", deflated + tail, f"{len(tail)} bytes follow the end of the deflate body")
              for tail in (b"garbage", zlib.compress(b""))]  # fmt: skip
    for name, body, message in cases:
        assert await refusal_of(body, name) == message, (name, body)


async def test_an_unknown_encoding_is_refused_by_name():
    for encoding in ("br", "zstd", "gzip, deflate", "x-gzip", "gz\xef"):
        message = await refusal_of(b"", encoding, UnsupportedError)
        assert message == f"Unsupported compression type '{encoding}'; supported: gzip, deflate"


async def test_the_work_for_many_gzip_members_does_not_grow_with_their_square(monkeypatch):
    fed, make = [], zlib.decompressobj

    class Inflater:
        def __init__(self, window):
            self._inflater = make(window)

        def decompress(self, data, *room):
            fed.append(len(data))
            return self._inflater.decompress(data, *room)

        def __getattr__(self, name):
            return getattr(self._inflater, name)

    monkeypatch.setattr(zlib, "decompressobj", Inflater)
    work = []
    for members in (4000, 8000):
        with suppress(InvalidRequestError, PayloadTooLargeError):
            await read(gzip.compress(b"") * members, "gzip")
        work.append(sum(fed))
        fed.clear()
    assert work[1] <= 3 * work[0]

"""What every HTTP transport reads of a request, within limits: its deadline, its body and the JSON in it."""

import asyncio
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

from serve_app.errors import InvalidRequestError, PayloadTooLargeError, QueueFullError, UnsupportedError
from serve_app.router import requests
from serve_app.router.errors import HANDLERS
from serve_app.router.requests import (
    BODY,
    DEADLINE_HEADER,
    LARGE_BYTES,
    BoundBody,
    HeldBytes,
    IncomingBody,
    deadline_of,
    read_body,
)
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


def application(**settings):
    return Starlette(
        routes=[Route("/", count, methods=["POST"]), Route("/unread", ignore, methods=["POST"])],
        middleware=[Middleware(BoundBody, settings=RouterSettings(max_body_mib=1, **settings))],
        exception_handlers=HANDLERS,
    )


APP = application()
QUARTER, WHOLE = 1 << 18, 1 << 20
TOO_LARGE = b'{"error":"the body is larger than the limit of 1048576 bytes"}'


async def post(*chunks, path="/", length=None, app=APP, pause_s=0.0, deadline=None):
    """Status and body of the answer, and how many of the chunks were read."""
    waiting, sent = list(chunks), []

    async def receive():
        await asyncio.sleep(pause_s)
        chunk = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

    async def send(message):
        sent.append(message)

    headers = [] if length is None else [(b"content-length", length)]
    headers += [] if deadline is None else [(DEADLINE_HEADER.encode(), deadline)]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(part.get("body", b"") for part in sent), len(chunks) - len(waiting)


async def test_a_body_up_to_the_limit_passes_and_the_next_request_is_counted_from_zero():
    for size in (0, 1, WHOLE, WHOLE):
        for length in (None, str(size).encode()):
            assert (await post(bytes(size), length=length))[:2] == (200, str(size).encode())
    assert await post(bytes(QUARTER), bytes(QUARTER * 2), bytes(QUARTER)) == (200, b"1048576", 3)


async def test_a_body_over_the_limit_is_refused_and_the_rest_is_not_read():
    for length in (b"1048577", b"9" * 5000):
        assert await post(bytes(5), length=length) == (413, TOO_LARGE, 0), "announced: not read at all"
    assert await post(bytes(QUARTER), bytes(QUARTER * 3), b"i", b"j", b"k") == (413, TOO_LARGE, 3)
    for length in (b"1", b"0", b"", b"-5", b"x", b"1e9"):
        assert (await post(bytes(WHOLE), bytes(8), length=length))[:2] == (413, TOO_LARGE), length


async def test_only_http_bodies_that_are_read_are_limited():
    assert (await post(bytes(WHOLE + 50), path="/unread"))[:2] == (200, b"unread")
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    await BoundBody(app, SETTINGS)({"type": "lifespan"}, "receive", "send")
    assert seen == [({"type": "lifespan"}, "receive", "send")]


async def test_a_body_that_trickles_is_refused_and_its_connection_closed(monkeypatch):
    monkeypatch.setattr(requests, "GRACE_S", 0.1)
    trickle = [b"x"] * 1000
    slow = b'{"error":"the body arrives too slowly: '
    status, answer, read_chunks = await post(*trickle, pause_s=0.02)
    assert (status, answer[: len(slow)]) == (408, slow)
    assert read_chunks < 20
    fast_enough = application(body_rate_kib_s=0.01)
    assert (await post(*trickle[:20], pause_s=0.02, app=fast_enough))[:2] == (200, b"20")


async def test_a_body_arrives_before_the_deadline_of_its_request():
    status, answer, _ = await post(*[b"x"] * 100, pause_s=0.02, deadline=b"0.2")
    assert (status, b"too slowly" in answer) == (408, True)
    assert (await post(b"x", deadline=b"1e-9"))[0] == 504, "late already"
    assert (await post(b"x", deadline=b"nonsense"))[0] == 200, "whoever handles the request refuses it"


async def test_bodies_that_a_router_holds_are_bounded_and_counted_back():
    release, held = asyncio.Event(), []

    async def app(scope, receive, send):
        await receive()
        held.append(scope[BODY].held)
        await release.wait()

    bound = BoundBody(app, RouterSettings(max_held_mib=2, max_body_mib=1))

    async def begin(size, announced):
        async def receive():
            return {"type": "http.request", "body": bytes(size), "more_body": True}

        headers = [(b"content-length", str(size).encode())] if announced else []
        await bound({"type": "http", "headers": headers}, receive, None)

    waiting = [asyncio.create_task(begin(WHOLE, announced)) for announced in (True, False)]
    await asyncio.sleep(0)
    for announced in (True, False):
        with pytest.raises(QueueFullError, match="request bodies take 2097152 of the router's 2097152 bytes"):
            await begin(1, announced)
    release.set()
    await asyncio.gather(*waiting)
    await begin(WHOLE, True)
    assert held == [WHOLE, WHOLE, WHOLE]


async def test_what_a_body_inflates_to_is_held_too():
    held = HeldBytes(LIMIT)
    with pytest.raises(QueueFullError):
        await read(gzip.compress(bytes(LIMIT)), "gzip", held=held)
    held.count = 0
    await read(gzip.compress(bytes(LIMIT // 2)), "gzip", held=held)
    assert LIMIT // 2 < held.count < LIMIT


async def read(body, encoding=None, limit=LIMIT, held=None):
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [] if encoding is None else [(b"content-encoding", encoding.encode("latin-1"))]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    scope[BODY] = IncomingBody(receive, Headers(raw=headers), SETTINGS, held or HeldBytes(1 << 30))
    return await read_body(Request(scope, scope[BODY].receive), limit)


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

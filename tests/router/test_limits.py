"""How much a body may hold, whatever its headers say."""

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from serve_app.router.errors import HANDLERS
from serve_app.router.requests import LimitBody

LIMIT = 10


async def count(request):
    return PlainTextResponse(str(len(await request.body())))


async def ignore(request):
    return PlainTextResponse("unread")


APP = Starlette(
    routes=[Route("/", count, methods=["POST"]), Route("/unread", ignore, methods=["POST"])],
    middleware=[Middleware(LimitBody, max_bytes=LIMIT)],
    exception_handlers=HANDLERS,
)


async def post(*chunks, path="/", headers=()):
    """Status and body of the answer, and how many of the chunks were taken."""
    waiting, sent = list(chunks), []

    async def receive():
        chunk = waiting.pop(0) if waiting else b""
        return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers), "query_string": b""}
    try:
        await APP(scope, receive, send)
    except Exception:  # Starlette answers 500, and raises for the server's log
        assert sent[0]["status"] == 500
    return sent[0]["status"], b"".join(part.get("body", b"") for part in sent), len(chunks) - len(waiting)


REFUSED = b'{"error":"the body is larger than the limit of 10 bytes"}'


@pytest.mark.parametrize("size", [0, 1, LIMIT])
async def test_a_body_up_to_the_limit_passes(size):
    for headers in ((), [(b"content-length", str(size).encode())]):
        assert (await post(bytes(size), headers=headers))[:2] == (200, str(size).encode())


async def test_a_body_that_announces_too_much_is_refused_unread():
    status, body, taken = await post(bytes(5), headers=[(b"content-length", b"11")])
    assert (status, body, taken) == (413, REFUSED, 0)


async def test_chunks_are_counted_and_the_rest_is_not_taken():
    assert await post(b"abcd", b"efgh", b"ij") == (200, b"10", 3)
    assert await post(b"abcd", b"efgh", b"ijk", b"lmn", b"opq") == (413, REFUSED, 3)


@pytest.mark.parametrize("length", [b"1", b"0", b"", b"-5", b"x", b"1e9"])
async def test_a_length_that_lies_does_not_help(length):
    assert (await post(bytes(8), bytes(8), headers=[(b"content-length", length)]))[:2] == (413, REFUSED)


async def test_a_body_that_nobody_reads_is_not_refused():
    assert (await post(bytes(50), path="/unread"))[:2] == (200, b"unread")


async def test_each_request_is_counted_alone():
    for _ in range(3):
        assert (await post(bytes(LIMIT)))[0] == 200


async def test_what_is_no_http_passes_through():
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    await LimitBody(app, 1)({"type": "lifespan"}, "receive", "send")
    assert seen == [({"type": "lifespan"}, "receive", "send")]


async def test_a_length_of_thousands_of_digits_is_too_large():
    assert (await post(b"", headers=[(b"content-length", b"9" * 5000)]))[:2] == (413, REFUSED)

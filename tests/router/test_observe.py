"""Metrics of HTTP requests: protocol, status, size, refusals, and callers that leave."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from serve_app.errors import NotFoundError, QueueFullError
from serve_app.router.errors import HANDLERS, public_error
from serve_app.router.observe import ObserveRequests, protocol_of
from serve_app.telemetry.metrics import RequestMetrics
from serve_app.telemetry.observation import observed


async def echo(request):
    observed().model = "echo"
    return PlainTextResponse(await request.body())


async def refuse(_request):
    raise QueueFullError("too many")


async def break_down(_request):
    raise RuntimeError("a mistake of ours")


async def break_off(_request):
    async def pieces():
        yield b"begun"
        yield public_error(NotFoundError("gone")).message.encode()

    return StreamingResponse(pieces())


async def wait(_request):
    await asyncio.sleep(60)


async def stream(_request):
    async def pieces():
        while True:
            yield b"more"
            await asyncio.sleep(0.01)

    return StreamingResponse(pieces())


PLACES = {"echo": echo, "refuse": refuse, "break_down": break_down, "break_off": break_off, "wait": wait}


def application():
    return Starlette(
        routes=[
            *(Route(f"/v2/{name}", endpoint, methods=["GET", "POST"]) for name, endpoint in PLACES.items()),
            Route("/v2/stream", stream),
            Route("/v2/health/live", echo),
            Route("/tracks", echo),
        ],
        middleware=[Middleware(ObserveRequests, metrics=RequestMetrics())],
        exception_handlers=HANDLERS,
    )


@pytest.fixture
async def client(recorded):
    transport = httpx.ASGITransport(application(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as made:
        yield made


def requests(recorded):
    found = [tags for name, tags, _ in recorded if name == "serve_app_requests"]
    return [(tags["protocol"], tags["model"], tags["status"]) for tags in found]


def values(recorded, name):
    return [value for found, _, value in recorded if found == name]


async def test_a_request_is_counted_with_its_status_bytes_and_reason(client, recorded):
    for path, answered, counted, model, reasons in (
        ("echo", 200, "200", "echo", []),
        ("refuse", 503, "503", "", ["queue_full"]),
        ("nothing", 404, "404", "", []),
        ("break_down", 500, "500", "", []),  # our own failure is no refusal
        ("break_off", 200, "404", "", ["not_found"]),  # a stream that ends in an error
    ):
        assert (await client.post(f"/v2/{path}", content=b"x" * 1000)).status_code == answered
        assert requests(recorded) == [("kserve-http", model, counted)]
        assert [tags["reason"] for name, tags, _ in recorded if name == "serve_app_rejected"] == reasons, path
        if path == "echo":
            assert values(recorded, "serve_app_received_bytes") == values(recorded, "serve_app_sent_bytes") == [1000]
        recorded.clear()


async def test_health_checks_and_the_like_are_not_counted(client, recorded):
    for path in ("/v2/health/live", "/tracks"):
        assert (await client.get(path)).status_code == 200
    assert recorded == []


async def leave(path):
    """Send a request and disconnect; some servers cancel the task too, others only send the disconnect."""
    gone = asyncio.Event()

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(_message):
        pass

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", "asgi": {}}
    task = asyncio.create_task(application()(scope, receive, send))
    await asyncio.sleep(0.1)
    gone.set()
    return task


async def test_a_caller_that_leaves_is_counted_as_cancelled(recorded):
    for path in ("wait", "stream"):  # before the answer begins, and in the middle of it
        task = await leave(f"/v2/{path}")
        if path == "wait":
            task.cancel()
        await asyncio.wait([task], timeout=5)
        assert requests(recorded) == [("kserve-http", "", "499")]
        assert values(recorded, "serve_app_cancelled") == [1]
        recorded.clear()


def test_the_protocol_is_that_of_the_path():
    for path, protocol in {
        "/predict/nano": "rest", "/pytorch/predict/nano": "rest", "/v1/chat/completions": "openai",
        "/v2/models/a/infer": "kserve-http", "/v2": "kserve-http", "/v2/health/ready": "", "/metrics": "", "/docs": "",
    }.items():  # fmt: skip
        assert protocol_of(path) == protocol

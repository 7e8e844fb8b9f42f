"""What the metrics learn of a request over HTTP: status, size, refusals, and callers who leave."""

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


async def test_an_answer_is_counted_with_its_status_and_its_bytes(client, recorded):
    await client.post("/v2/echo", content=b"x" * 1000)
    assert requests(recorded) == [("kserve-http", "echo", "200")]
    assert values(recorded, "serve_app_received_bytes") == [1000]
    assert values(recorded, "serve_app_sent_bytes") == [1000]


async def test_a_refusal_has_its_reason(client, recorded):
    assert (await client.get("/v2/refuse")).status_code == 503
    assert requests(recorded) == [("kserve-http", "", "503")]
    assert [tags["reason"] for name, tags, _ in recorded if name == "serve_app_rejected"] == ["queue_full"]


async def test_a_path_that_does_not_exist_is_counted_too(client, recorded):
    assert (await client.get("/v2/nothing")).status_code == 404
    assert requests(recorded) == [("kserve-http", "", "404")]


async def test_a_mistake_of_ours_is_a_500_and_no_refusal(client, recorded):
    assert (await client.get("/v2/break_down")).status_code == 500
    assert requests(recorded) == [("kserve-http", "", "500")]
    assert not values(recorded, "serve_app_rejected")


async def test_a_stream_that_ends_in_an_error_has_the_status_of_the_error(client, recorded):
    assert (await client.get("/v2/break_off")).status_code == 200
    assert requests(recorded) == [("kserve-http", "", "404")]


@pytest.mark.parametrize("path", ["/v2/health/live", "/tracks"])
async def test_what_operators_ask_all_day_is_not_counted(client, recorded, path):
    assert (await client.get(path)).status_code == 200
    assert recorded == []


async def leave(path, recorded):
    """Ask, and go away; a server that cancels the request's task, and one that only says it."""
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


async def test_a_caller_who_leaves_while_nothing_has_come_is_cancelled(recorded):
    task = await leave("/v2/wait", recorded)
    task.cancel()
    await asyncio.wait([task])
    assert requests(recorded) == [("kserve-http", "", "499")]
    assert values(recorded, "serve_app_cancelled") == [1]


async def test_a_caller_who_leaves_in_the_middle_of_a_stream_is_cancelled(recorded):
    await asyncio.wait([await leave("/v2/stream", recorded)], timeout=5)
    assert requests(recorded) == [("kserve-http", "", "499")]
    assert values(recorded, "serve_app_cancelled") == [1]


@pytest.mark.parametrize(
    ("path", "protocol"),
    [
        ("/predict/nano", "rest"),
        ("/pytorch/predict/nano", "rest"),
        ("/v1/chat/completions", "openai"),
        ("/v2/models/a/infer", "kserve-http"),
        ("/v2", "kserve-http"),
        ("/v2/health/ready", ""),
        ("/metrics", ""),
        ("/docs", ""),
    ],
)
def test_paths_tell_the_protocol(path, protocol):
    assert protocol_of(path) == protocol

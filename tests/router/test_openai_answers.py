"""A model's answer under OpenAI's API: one document, events as they come, errors, and clients that leave."""

import asyncio
import gc
import json

import httpx
import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve.exceptions import BackPressureError
from starlette.applications import Starlette

from serve_app.errors import InvalidRequestError, NotFoundError, UnavailableError, UnsupportedError
from serve_app.router.catalog import Catalog
from serve_app.router.deployments import Deployments
from serve_app.router.errors import HANDLERS
from serve_app.router.offload import Offload
from serve_app.router.openai import OpenAi
from serve_app.router.plane import DataPlane
from serve_app.settings import Settings

CHAT = "/v1/chat/completions"
DEMO = {"name": "demo-llm"}
DOCUMENT = (200, '{"object": "x"}', 0)
EVENTS = [(200, event, 0) for event in ('data: {"a": "grün\\n\\n"}\n\n', 'data: {"b": 2}\n\n', "data: [DONE]\n\n")]
KINDS = {400: "invalid_request_error", 404: "not_found_error"}
HANGS = asyncio.Event


@pytest.fixture
def build(deploy):
    """The application over one model, whose next call answers these pieces, and the model's handle."""

    def over(*pieces):
        settings = Settings(triton=(), baseline=None, llms=(DEMO,))
        upstream, handle = deploy("demo-llm", script=[list(pieces)] * 2, wake_timeout_s=60)
        routes = OpenAi(DataPlane(Catalog([], {}), Deployments([upstream])), settings, Offload()).routes()
        return Starlette(routes=routes, exception_handlers=HANDLERS), handle

    return over


@pytest.fixture
def ask(build):
    """The HTTP answer that these pieces become, and the calls to the model that it took."""

    async def post(*pieces, path=CHAT, timeout_s="60", **document):
        app, handle = build(*pieces)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
            answer = await client.post(path, json=document, headers={"x-request-timeout-s": timeout_s})
        return answer, handle.answers

    return post


def error_of(answer, status):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error == {
        "message": error["message"], "type": KINDS.get(status, "server_error"), "param": None, "code": status,
    }  # fmt: skip
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)
    return error["message"]


async def converse(app, receive, send):
    """One request at the level of ASGI; `receive` is asked once the body is read."""
    body = [{"type": "http.request", "body": b"{}", "more_body": False}]

    async def body_first():
        return body.pop() if body else await receive()

    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": [], "query_string": b""}
    await app(scope, body_first, send)


async def until_true(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - the fake has no event for it
            await asyncio.sleep(0.001)


async def forever():
    await asyncio.Event().wait()


async def test_the_answer_of_a_replica_keeps_its_status_and_text(ask):
    for status in (200, 400, 404, 422, 500, 503):
        answer, _ = await ask((status, '{"error": {"message": "ü"}}', 0), stream=True)
        assert (answer.status_code, answer.text) == (status, '{"error": {"message": "ü"}}')
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers.get("retry-after") == ("1" if status == 503 else None)


async def test_an_answer_that_has_come_is_not_lost_with_its_replica(ask):
    for end in (ActorDiedError(), HANGS):
        answer, _ = await ask(DOCUMENT, end, timeout_s="0.05")
        assert (answer.status_code, answer.text, 0) == DOCUMENT


def raised_in_a_replica(problem):
    return RayTaskError("openai", "Traceback with internals", problem).as_instanceof_cause()


UNKNOWN = "internal error; see the service's log"
FULL = "the deployment's queue is full; try again later"
BUSY = "the deployment is busy or not ready; try again later"
PROBLEMS = [
    (raised_in_a_replica(InvalidRequestError("n: must be 1")), 400, "n: must be 1"),
    (raised_in_a_replica(NotFoundError("no adapter")), 404, "no adapter"),
    (raised_in_a_replica(UnsupportedError("no embeddings")), 501, "no embeddings"),
    (raised_in_a_replica(UnavailableError("the engine died")), 503, "the engine died"),
    (BackPressureError(num_queued_requests=1, max_queued_requests=1), 503, FULL),
    (ActorDiedError(), 503, BUSY),
    (raised_in_a_replica(KeyError("internals")), 500, UNKNOWN),
    (HANGS, 504, "demo-llm had not finished before the deadline"),
]


async def test_a_failure_before_the_first_piece_has_its_own_status(ask):
    for problem, status, message in PROBLEMS:
        answer, calls = await ask(problem, timeout_s="0.05", stream=True)
        assert error_of(answer, status) == message
        assert all(call.cancelled for call in calls)
    assert error_of((await ask())[0], 500) == UNKNOWN, "an answer without a piece"


async def test_events_pass_as_they_are(ask):
    for path in (CHAT, "/v1/completions"):
        answer, calls = await ask(*EVENTS, path=path)
        assert (answer.status_code, answer.text) == (200, "".join(text for _, text, _ in EVENTS))
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        assert len(calls) == 1


async def test_a_failure_after_the_first_event_is_an_event_before_the_last(ask):
    given = "".join(text for _, text, _ in EVENTS[:2])
    for problem, status, message in PROBLEMS:
        answer, calls = await ask(*EVENTS[:2], problem, timeout_s="0.05", stream=True)
        assert (answer.status_code, answer.text[: len(given)]) == (200, given)
        event, *end = answer.text[len(given) :].split("\n\n")
        assert end == ["data: [DONE]", ""]
        error = {"message": message, "type": KINDS.get(status, "server_error"), "param": None, "code": status}
        assert json.loads(event.removeprefix("data: ")) == {"error": error}
        assert [call.cancelled for call in calls] == [True]


async def test_a_piece_is_sent_before_the_next_has_come(build):
    gate, sent = asyncio.Event(), []

    async def send(message):
        sent.append(message.get("body"))

    app, _ = build(EVENTS[0], gate, EVENTS[1])
    request = asyncio.create_task(converse(app, forever, send))
    await until_true(lambda: len(sent) == 2)
    assert sent[1].decode() == EVENTS[0][1]
    gate.set()
    await request
    assert [body.decode() for body in sent[2:]] == [EVENTS[1][1], ""]


@pytest.fixture
def _no_collection():
    """So that nothing is cancelled by garbage collection alone."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collection")
@pytest.mark.parametrize(
    ("sending", "pieces"),
    [(3, 2), (1, 2), (2, 2), (0, 0)],
    ids=["for-the-next-piece", "while-the-head-is-sent", "while-a-piece-is-sent", "before-the-first-piece"],
)
async def test_a_client_that_leaves_cancels_its_request(build, sending, pieces):
    gone, first, sent = asyncio.Event(), asyncio.Event(), []

    async def receive():
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)
        if len(sent) == sending and sending < 3:
            await forever()

    app, handle = build(first, *EVENTS[:2], HANGS)
    request = asyncio.create_task(converse(app, receive, send))
    if pieces:
        first.set()
    await until_true(lambda: handle.answers and len(sent) == sending)
    gone.set()
    first.set()
    await request
    await asyncio.sleep(0.02)
    assert handle.answers[0].cancelled


async def test_a_request_that_is_cancelled_before_its_first_piece_cancels_its_call(build):
    app, handle = build(HANGS)
    request = asyncio.create_task(converse(app, forever, None))
    await until_true(lambda: handle.answers)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    assert [call.cancelled for call in handle.answers] == [True]

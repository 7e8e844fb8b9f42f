"""What comes back from a model under OpenAI's API: one document, events as they come, errors, and who goes away.

Replicas are faked: a handle gives out the pieces of one answer.
"""

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
from serve_app.router.openai import OpenAi
from serve_app.router.plane import DataPlane
from serve_app.router.upstream import Upstream
from serve_app.settings import Settings

CHAT = "/v1/chat/completions"
DEMO = {"name": "demo-llm"}
DOCUMENT = (200, '{"object": "x"}')
EVENTS = [(200, 'data: {"a": "grün\\n\\n"}\n\n'), (200, 'data: {"b": 2}\n\n'), (200, "data: [DONE]\n\n")]
KINDS = {400: "invalid_request_error", 404: "not_found_error"}
HANGS = object()


async def never(_actor_id):
    """No replica crashed."""
    return False


class Stream:
    """What a streaming call gives: pieces, errors to raise, events to wait for."""

    def __init__(self, parts):
        self._parts, self.cancelled = list(parts), False

    def cancel(self):
        self.cancelled = True

    async def __anext__(self):
        part = self._parts.pop(0) if self._parts else StopAsyncIteration()
        if part is HANGS:
            await asyncio.Event().wait()
        if isinstance(part, asyncio.Event):
            await part.wait()
            return await anext(self)
        if isinstance(part, BaseException):
            raise part
        return part


class Handle:
    def __init__(self, parts):
        self._parts, self.streams = parts, []

    def options(self, **_options):
        return self

    @property
    def openai(self):
        return self

    def remote(self, *_arguments):
        self.streams.append(Stream(self._parts))
        return self.streams[-1]


def build(*parts):
    settings, handle = Settings(triton=(), baseline=None, llms=(DEMO,)), Handle(parts)
    deployments = Deployments([Upstream("demo-llm", handle, wake_timeout_s=60, crashed=never)])
    routes = OpenAi(DataPlane(Catalog([], {}), deployments), settings).routes()
    return Starlette(routes=routes, exception_handlers=HANDLERS), handle


async def ask(*parts, path=CHAT, timeout_s="60", **document):
    """The answer that these pieces become, and the calls to the model that it took."""
    app, handle = build(*parts)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
        answer = await client.post(path, json=document, headers={"x-request-timeout-s": timeout_s})
    return answer, handle.streams


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

    async def first_the_body():
        return body.pop() if body else await receive()

    await app(
        {"type": "http", "method": "POST", "path": CHAT, "headers": [], "query_string": b""}, first_the_body, send
    )


async def until_true(condition):
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for is in a fake
            await asyncio.sleep(0.001)


async def forever():
    await asyncio.Event().wait()


@pytest.mark.parametrize("status", [200, 400, 404, 422, 500, 503])
async def test_the_answer_of_a_replica_keeps_its_status_and_text(status):
    answer, _ = await ask((status, '{"error": {"message": "ü"}}'), stream=True)
    assert (answer.status_code, answer.text) == (status, '{"error": {"message": "ü"}}')
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)


@pytest.mark.parametrize("end", [ActorDiedError(), HANGS])
async def test_an_answer_that_has_come_is_not_lost_with_its_replica(end):
    answer, _ = await ask(DOCUMENT, end, timeout_s="0.1")
    assert (answer.status_code, answer.text) == DOCUMENT


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


@pytest.mark.parametrize(("problem", "status", "message"), PROBLEMS)
async def test_what_fails_before_the_first_piece_has_its_own_status(problem, status, message):
    answer, streams = await ask(problem, timeout_s="0.1", stream=True)
    assert error_of(answer, status) == message
    assert all(stream.cancelled for stream in streams)


async def test_an_answer_without_a_piece_is_a_failure():
    answer, _ = await ask()
    assert error_of(answer, 500) == UNKNOWN


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_events_pass_as_they_are(path):
    answer, streams = await ask(*EVENTS, path=path)
    assert (answer.status_code, answer.text) == (200, "".join(text for _, text in EVENTS))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert len(streams) == 1


@pytest.mark.parametrize(("problem", "status", "message"), PROBLEMS)
async def test_what_fails_midway_is_an_event_and_then_the_end(problem, status, message):
    answer, streams = await ask(*EVENTS[:2], problem, timeout_s="0.1", stream=True)
    given = "".join(text for _, text in EVENTS[:2])
    assert (answer.status_code, answer.text[: len(given)]) == (200, given)
    event, *end = answer.text[len(given) :].split("\n\n")
    assert end == ["data: [DONE]", ""]
    error = {"message": message, "type": KINDS.get(status, "server_error"), "param": None, "code": status}
    assert json.loads(event.removeprefix("data: ")) == {"error": error}
    assert [stream.cancelled for stream in streams] == [True]


async def test_a_piece_is_sent_before_the_next_is_there():
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
    """What only the collection of garbage would end goes on for as long as that takes."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collection")
@pytest.mark.parametrize(
    ("sending", "pieces"),
    [(3, 2), (1, 2), (2, 2), (0, 0)],
    ids=["for-the-next-piece", "while-the-head-is-sent", "while-a-piece-is-sent", "before-the-first-piece"],
)
async def test_a_client_that_goes_away_cancels_its_request(sending, pieces):
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
    await until_true(lambda: handle.streams and len(sent) == sending)
    gone.set()
    first.set()
    await request
    await asyncio.sleep(0.02)
    assert handle.streams[0].cancelled


async def test_a_request_that_is_cancelled_before_its_first_piece_cancels_the_work_for_it():
    app, handle = build(HANGS)
    request = asyncio.create_task(converse(app, forever, None))
    await until_true(lambda: handle.streams)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    assert [stream.cancelled for stream in handle.streams] == [True]

"""A visitor's request: from the router through a handle to the page in another process, and back."""

import asyncio
import pickle
from contextlib import aclosing

import httpx
import pytest
from ray.exceptions import ActorDiedError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from serve_app.router.errors import HANDLERS
from serve_app.router.observe import ObserveRequests
from serve_app.router.requests import BoundBody
from serve_app.router.rest.playground import Playground
from serve_app.router.upstream import Upstream
from serve_app.settings import RouterSettings
from serve_app.telemetry.metrics import RequestMetrics
from serve_app.ui.asgi import stream_response

LIMIT = 1 << 20
SCOPE = {"type": "http", "method": "GET", "http_version": "1.1", "query_string": b"", "headers": []}


class Page:
    """`step` lets its stream go on; `closed` is set once its reader has left."""

    def __init__(self):
        self.closed, self.step = asyncio.Event(), asyncio.Event()
        routes = [Route("/echo", self.echo, methods=["GET", "POST", "DELETE"]), Route("/fail", self.fail)]
        for pieces in (self.steps, self.flood, self.break_off):
            routes.append(Route(f"/{pieces.__name__}", self.streaming(pieces)))
        self.app = Starlette(routes=[Mount("/ui", routes=routes)])

    async def echo(self, request):
        seen = {
            "method": request.method, "url": str(request.url), "body": (await request.body()).decode(),
            "proto": request.headers.get("x-forwarded-proto"), "client": request.client.host,
        }  # fmt: skip
        answer = JSONResponse(seen, 201)
        answer.set_cookie("one", "1")
        answer.set_cookie("two", "2")
        return answer

    async def fail(self, _request):
        raise RuntimeError("a bug")

    def streaming(self, pieces):
        async def endpoint(_request):
            return StreamingResponse(pieces(), media_type="text/event-stream")

        return endpoint

    async def steps(self):
        try:
            yield "first "
            await self.step.wait()
            yield "second"
            await asyncio.sleep(60)
        finally:
            self.closed.set()

    async def flood(self):
        while True:
            yield "x" * 1000

    async def break_off(self):
        yield "begun"
        raise RuntimeError("a bug")


class Answers:
    """Serve's answer to a streaming call: each message is pickled."""

    def __init__(self, messages):
        self._messages = messages
        self.cancelled = False

    def __aiter__(self):
        return self

    async def __anext__(self):
        return pickle.loads(pickle.dumps(await anext(self._messages)))

    def cancel(self):
        self.cancelled = True
        self._closing = asyncio.ensure_future(self._messages.aclose())


class Handle:
    """Its first `deaths` calls meet a dead replica."""

    def __init__(self, page, deaths=0):
        self._page, self._deaths, self.calls = page, deaths, []

    def options(self, **_):
        return self

    @property
    def respond(self):
        return self

    def remote(self, *arguments):
        scope, body = pickle.loads(pickle.dumps(arguments))
        dead = len(self.calls) < self._deaths
        self.calls.append(Answers(self._die() if dead else stream_response(self._page.app, scope, body)))
        return self.calls[-1]

    async def _die(self):
        raise ActorDiedError()
        yield


@pytest.fixture
async def page():
    return Page()


def router(handle):
    return Starlette(
        routes=Playground(Upstream("playground", handle)).routes(),
        middleware=[
            Middleware(ObserveRequests, metrics=RequestMetrics()),
            Middleware(BoundBody, settings=RouterSettings(max_body_mib=LIMIT >> 20)),
        ],
        exception_handlers=HANDLERS,
    )


def client(page, deaths=0):
    application = router(Handle(page, deaths))
    transport = httpx.ASGITransport(application, raise_app_exceptions=False, client=("10.0.0.1", 5))
    return httpx.AsyncClient(transport=transport, base_url="http://service:8000")


async def test_the_request_and_the_answer_pass_unchanged(page):
    answer = await client(page).post("/ui/echo?a=1&b=%2F", content="text", headers={"X-Forwarded-Proto": "https"})
    assert answer.status_code == 201
    assert answer.json() == {
        "method": "POST", "url": "http://service:8000/ui/echo?a=1&b=%2F", "body": "text", "proto": "https",
        "client": "10.0.0.1",
    }  # fmt: skip
    assert [value.split(";")[0] for value in answer.headers.get_list("set-cookie")] == ["one=1", "two=2"]
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert (await client(page).delete("/ui/echo")).json()["method"] == "DELETE"
    missing = await client(page).get("/ui/nowhere")
    assert (missing.status_code, missing.text) == (404, "Not Found")


async def test_the_bare_path_redirects_relative_to_where_the_browser_sees_it(page):
    answer = await client(page).get("/ui")
    assert (answer.status_code, answer.headers["location"]) == (307, "ui/")


async def test_a_body_over_the_limit_is_refused_before_it_reaches_the_page(page):
    answer = await client(page).post("/ui/echo", content=bytes(LIMIT + 1))
    assert answer.status_code == 413
    assert "larger than the limit of 1048576 bytes" in answer.json()["error"]


async def test_a_page_that_fails_answers_500_without_the_reason(page):
    answer = await client(page).get("/ui/fail")
    assert answer.status_code == 500
    assert "a bug" not in answer.text


async def test_a_dead_replica_is_retried_once_then_answered_503(page):
    assert (await client(page, deaths=1).get("/ui/echo")).status_code == 201
    answer = await client(page, deaths=2).get("/ui/echo")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_visits_are_not_counted_as_requests(page, recorded):
    await client(page).get("/ui/echo")
    await client(page).get("/ui")
    assert recorded == []


async def test_pieces_arrive_as_they_are_sent_and_a_visitor_who_leaves_ends_the_stream(page):
    handle = Handle(page)
    sent, left = asyncio.Queue(), asyncio.Event()
    requests = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive():
        if message := next(requests, None):
            return message
        await left.wait()
        return {"type": "http.disconnect"}

    scope = {**SCOPE, "path": "/ui/steps", "asgi": {"version": "3.0", "spec_version": "2.3"}}
    visit = asyncio.create_task(router(handle)(scope, receive, sent.put))
    async with asyncio.timeout(10):
        assert dict((await sent.get())["headers"])[b"content-type"].startswith(b"text/event-stream")
        assert (await sent.get())["body"] == b"first "
        assert sent.empty()
        page.step.set()
        assert (await sent.get())["body"] == b"second"
        left.set()
        await asyncio.gather(visit, return_exceptions=True)
        await page.closed.wait()
    assert handle.calls[0].cancelled


async def test_no_task_is_left_when_the_reader_stops_or_the_application_ends(page):
    before = asyncio.all_tasks()
    async with asyncio.timeout(10), aclosing(stream_response(page.app, {**SCOPE, "path": "/ui/flood"}, b"")) as answer:
        for _ in range(5):
            assert (await anext(answer))["type"].startswith("http.response")
    async for _ in stream_response(PlainTextResponse("done"), {**SCOPE, "path": "/"}, b""):
        pass
    assert asyncio.all_tasks() == before


async def test_an_application_that_fails_midway_breaks_the_answer_off(page):
    answer = stream_response(page.app, {**SCOPE, "path": "/ui/break_off"}, b"")
    assert [(await anext(answer)).get("body") for _ in range(2)] == [None, b"begun"]
    with pytest.raises(RuntimeError, match="a bug"):
        await anext(answer)

"""The way of a visitor's request: from the router over a handle into an application in another process, and back."""

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
from serve_app.router.requests import LimitBody
from serve_app.router.rest.playground import Playground
from serve_app.router.upstream import Upstream
from serve_app.telemetry.metrics import RequestMetrics
from serve_app.ui.driving import drive

LIMIT = 1000
SCOPE = {"type": "http", "method": "GET", "http_version": "1.1", "query_string": b"", "headers": []}


class Page:
    """What is shown; it remembers which of its streams were left."""

    def __init__(self):
        self.left = asyncio.Event()
        self.step = asyncio.Event()
        routes = [
            Route("/tell", self.tell, methods=["GET", "POST", "DELETE"]),
            Route("/stream", self.stream),
            Route("/flood", self.flood),
            Route("/fail", self.fail),
            Route("/fail_later", self.fail_later),
        ]
        self.app = Starlette(routes=[Mount("/ui", routes=routes)])

    async def tell(self, request):
        told = {
            "method": request.method, "url": str(request.url), "body": (await request.body()).decode(),
            "proto": request.headers.get("x-forwarded-proto"), "client": request.client.host,
        }  # fmt: skip
        answer = JSONResponse(told, 201)
        answer.set_cookie("one", "1")
        answer.set_cookie("two", "2")
        return answer

    async def stream(self, _request):
        async def pieces():
            try:
                yield "first "
                await self.step.wait()
                yield "second"
                await asyncio.sleep(60)
            finally:
                self.left.set()

        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def flood(self, _request):
        async def pieces():
            while True:
                yield "x" * 1000

        return StreamingResponse(pieces())

    async def fail(self, _request):
        raise RuntimeError("a mistake of ours")

    async def fail_later(self, _request):
        async def pieces():
            yield "begun"
            raise RuntimeError("a mistake of ours")

        return StreamingResponse(pieces())


class Answers:
    """What Serve gives for a streaming call: each message has been through a pickle."""

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
    """`dies` is how many calls meet a replica that is gone."""

    def __init__(self, page, dies=0):
        self._page, self._dies, self.calls = page, dies, []

    def options(self, **_):
        return self

    @property
    def respond(self):
        return self

    def remote(self, *arguments):
        scope, body = pickle.loads(pickle.dumps(arguments))
        self.calls.append(Answers(self._died() if len(self.calls) < self._dies else drive(self._page.app, scope, body)))
        return self.calls[-1]

    async def _died(self):
        raise ActorDiedError()
        yield


@pytest.fixture
async def page():
    return Page()


def router(page, dies=0):
    handle = Handle(page, dies)
    application = Starlette(
        routes=Playground(Upstream("playground", handle)).routes(),
        middleware=[Middleware(ObserveRequests, metrics=RequestMetrics()), Middleware(LimitBody, max_bytes=LIMIT)],
        exception_handlers=HANDLERS,
    )
    return application, handle


def client(page, dies=0):
    transport = httpx.ASGITransport(router(page, dies)[0], raise_app_exceptions=False, client=("10.0.0.1", 5))
    return httpx.AsyncClient(transport=transport, base_url="http://service:8000")


async def test_everything_of_a_request_arrives_and_everything_of_the_answer_returns(page):
    headers = {"X-Forwarded-Proto": "https"}
    answer = await client(page).post("/ui/tell?a=1&b=%2F", content="a body", headers=headers)
    assert answer.status_code == 201
    assert answer.json() == {
        "method": "POST", "url": "http://service:8000/ui/tell?a=1&b=%2F", "body": "a body", "proto": "https",
        "client": "10.0.0.1",
    }  # fmt: skip
    assert [value.split(";")[0] for value in answer.headers.get_list("set-cookie")] == ["one=1", "two=2"]
    assert int(answer.headers["content-length"]) == len(answer.content)


async def test_any_method_and_any_path_below_is_the_pages(page):
    assert (await client(page).delete("/ui/tell")).json()["method"] == "DELETE"
    missing = await client(page).get("/ui/nowhere")
    assert (missing.status_code, missing.text) == (404, "Not Found")


async def test_the_bare_path_leads_to_the_page_wherever_it_is_seen_from(page):
    answer = await client(page).get("/ui")
    assert (answer.status_code, answer.headers["location"]) == (307, "ui/")


async def test_a_body_over_the_limit_never_reaches_the_page(page):
    answer = await client(page).post("/ui/tell", content=bytes(LIMIT + 1))
    assert answer.status_code == 413
    assert "over the limit" in answer.json()["error"]


async def test_a_page_that_breaks_is_a_500_without_its_reason(page):
    answer = await client(page).get("/ui/fail")
    assert answer.status_code == 500
    assert "mistake" not in answer.text


async def test_a_replica_that_died_is_tried_once_more_and_then_the_answer_is_503(page):
    assert (await client(page, dies=1).get("/ui/tell")).status_code == 201
    answer = await client(page, dies=2).get("/ui/tell")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_visits_are_not_counted_as_requests(page, recorded):
    await client(page).get("/ui/tell")
    await client(page).get("/ui")
    assert recorded == []


class Visit:
    """A request as a server makes it of the application, one message at a time."""

    def __init__(self, app, path):
        self.sent, self._gone = asyncio.Queue(), asyncio.Event()
        asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive():
            if message := next(asked, None):
                return message
            await self._gone.wait()
            return {"type": "http.disconnect"}

        scope = {**SCOPE, "path": path, "asgi": {"version": "3.0", "spec_version": "2.3"}}
        self.task = asyncio.create_task(app(scope, receive, self.sent.put))

    async def next(self):
        return await asyncio.wait_for(self.sent.get(), 5)

    async def leave(self):
        self._gone.set()
        await asyncio.wait_for(asyncio.gather(self.task, return_exceptions=True), 5)


async def test_a_piece_arrives_when_it_is_sent_and_a_visitor_who_leaves_ends_the_stream(page):
    app, handle = router(page)
    visit = Visit(app, "/ui/stream")
    assert dict((await visit.next())["headers"])[b"content-type"].startswith(b"text/event-stream")
    assert (await visit.next())["body"] == b"first "
    assert visit.sent.empty()
    page.step.set()
    assert (await visit.next())["body"] == b"second"
    await visit.leave()
    await asyncio.wait_for(page.left.wait(), 5)
    assert handle.calls[0].cancelled


async def test_a_reader_who_stops_ends_a_page_that_never_would(page):
    before = asyncio.all_tasks()
    async with aclosing(drive(page.app, {**SCOPE, "path": "/ui/flood"}, b"")) as messages:
        for _ in range(5):
            assert (await asyncio.wait_for(anext(messages), 5))["type"].startswith("http.response")
    assert asyncio.all_tasks() == before


async def test_what_breaks_in_the_middle_breaks_off_the_answer(page):
    messages = drive(page.app, {**SCOPE, "path": "/ui/fail_later"}, b"")
    assert [(await anext(messages)).get("body") for _ in range(2)] == [None, b"begun"]
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        await anext(messages)


async def test_an_application_that_ends_leaves_no_task_behind(page):
    before = asyncio.all_tasks()
    async for _ in drive(PlainTextResponse("done"), {**SCOPE, "path": "/"}, b""):
        pass
    assert asyncio.all_tasks() == before

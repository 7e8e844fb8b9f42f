"""When the page is made, and what is said where it can't be."""

import asyncio
import pickle

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from serve_app.errors import UnavailableError
from serve_app.settings import PlaygroundSettings
from serve_app.ui import deployment
from serve_app.ui.deployment import PlaygroundReplica

SCOPE = {"type": "http", "method": "GET", "path": "/ui/", "query_string": b"", "headers": []}
HEALTH = ("GET", "/health")


@pytest.fixture
def made(monkeypatch):
    """The services that pages were made for; a page is a line of text."""
    urls = []

    def build(url):
        urls.append(url)
        return Starlette(routes=[Route("/ui/", lambda _: PlainTextResponse("the page"))])

    monkeypatch.setattr(deployment, "_build", build)
    monkeypatch.setattr(deployment, "LOOK_INTERVAL_S", 0.01)
    return urls


async def replica(url):
    replica = PlaygroundReplica.__new__(PlaygroundReplica)
    await replica.__init__(PlaygroundSettings(service_url=url))
    return replica


async def page_of(replica):
    return b"".join([message.get("body", b"") async for message in replica.respond(SCOPE, b"")])


async def until_described(replica):
    while True:
        try:
            return replica.describe()
        except UnavailableError:
            await asyncio.sleep(0.01)


async def test_the_page_is_made_when_the_service_is_ready_and_not_before(fake, made):
    fake.answers[HEALTH] = (
        200,
        {"ready": True, "deployments": {"vision": True, "demo-llm": False, "playground": False}},
    )
    one = await replica(fake.url)
    await asyncio.sleep(0.2)
    assert made == []
    with pytest.raises(UnavailableError, match="not there yet"):
        one.describe()
    fake.answers[HEALTH] = (
        200,
        {"ready": True, "deployments": {"vision": True, "demo-llm": True, "playground": False}},
    )
    assert await asyncio.wait_for(until_described(one), 5) == {}
    assert made == [fake.url]
    assert await page_of(one) == b"the page"
    await one.__del__()


async def test_a_visitor_who_comes_before_gets_the_page_too(made):
    one = await replica("http://127.0.0.1:1")
    assert await asyncio.wait_for(page_of(one), 5) == b"the page"
    assert made == ["http://127.0.0.1:1"]
    await one.__del__()


async def test_what_keeps_the_page_from_being_made_is_told_and_hurts_nothing_else(monkeypatch, made, caplog):
    def broken(_url):
        raise ImportError("no Gradio here")

    monkeypatch.setattr(deployment, "_build", broken)
    one = await replica("http://127.0.0.1:1")
    for _ in range(2):
        with pytest.raises(UnavailableError, match="can't be shown; its log") as raised:
            await page_of(one)
        assert "Gradio" not in raised.value.message
        assert pickle.loads(pickle.dumps(raised.value)).message == raised.value.message
    with pytest.raises(UnavailableError, match="can't be shown"):
        one.describe()
    await one.__del__()


async def test_a_replica_that_ends_before_its_page_is_made_ends_quietly(made):
    one = await replica("http://127.0.0.1:1")
    await one.__del__()
    with pytest.raises(UnavailableError):
        one.describe()

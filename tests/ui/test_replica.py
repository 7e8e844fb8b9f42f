"""When the page is built, and what is answered where it can't be."""

import asyncio
import pickle

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from serve_app.errors import UnavailableError
from serve_app.settings import PlaygroundSettings
from serve_app.ui import replica
from serve_app.ui.replica import PlaygroundReplica

SCOPE = {"type": "http", "method": "GET", "path": "/ui/", "query_string": b"", "headers": []}
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def built(monkeypatch):
    """The services that pages were built for; a page is a line of text."""
    urls = []

    def build(url):
        urls.append(url)
        return Starlette(routes=[Route("/ui/", lambda _: PlainTextResponse("the page"))])

    monkeypatch.setattr(replica, "_build_page", build)
    monkeypatch.setattr(replica, "POLL_INTERVAL_S", 0.01)
    return urls


async def started(url):
    playground = PlaygroundReplica.__new__(PlaygroundReplica)
    await playground.__init__(PlaygroundSettings(service_url=url))
    return playground


async def page_of(playground):
    return b"".join([message.get("body", b"") async for message in playground.respond(SCOPE, b"")])


async def until(reached):
    while not reached():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_the_page_is_built_once_all_other_deployments_are_ready(service, built):
    def set_health(**deployments):
        health = {"ready": True, "deployments": deployments | {"playground": False}}
        service.answers["GET", "/health"] = (200, health)

    set_health(vision=True, demo=False)
    playground = await started(service.url)
    async with asyncio.timeout(5):
        await until(lambda: len(service.requests) >= 3)
        assert built == []
        with pytest.raises(UnavailableError, match="the playground page is not built yet"):
            playground.describe()
        set_health(vision=True, demo=True)
        await until(lambda: built)
        assert await page_of(playground) == b"the page"
    assert playground.describe() == {}
    assert built == [service.url]
    await playground.__del__()


async def test_a_request_before_that_builds_the_page_too(built):
    playground = await started(NOWHERE)
    assert await asyncio.wait_for(page_of(playground), 5) == b"the page"
    assert built == [NOWHERE]
    await playground.__del__()


async def test_a_page_that_cannot_be_built_answers_503_without_the_reason(monkeypatch, built):
    def fail(_url):
        raise ImportError("no Gradio here")

    monkeypatch.setattr(replica, "_build_page", fail)
    playground = await started(NOWHERE)
    for _ in range(2):
        with pytest.raises(UnavailableError, match="page could not be built; see the log of its replica") as raised:
            await page_of(playground)
        assert "Gradio" not in raised.value.message
        assert pickle.loads(pickle.dumps(raised.value)).message == raised.value.message
    with pytest.raises(UnavailableError, match="could not be built"):
        playground.describe()
    await playground.__del__()


async def test_a_replica_can_end_before_its_page_is_built(built):
    playground = await started(NOWHERE)
    await playground.__del__()
    with pytest.raises(UnavailableError):
        playground.describe()

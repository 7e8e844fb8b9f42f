"""A router takes so much of each kind of work at a time, and always answers what is no work."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from serve_app.errors import QueueFullError
from serve_app.router.admission import Admission, Admit
from serve_app.settings import RouterSettings

SETTINGS = RouterSettings(at_once={"detection": 2, "languages": 1, "streams": 1})


@pytest.fixture
def admission():
    return Admission(SETTINGS, ["demo-llm"])


def test_what_each_path_is(admission):
    for path, kind in {
        "/predict/nano": "detection", "/pytorch/predict/nano": "detection", "/v2/models/yolo/infer": "detection",
        "/v2/models/yolo/versions/1/infer": "detection", "/v2/models/demo-llm/generate_stream": "languages",
        "/v2/models/demo-llm/versions/1/generate": "languages", "/v1/chat/completions": "languages",
        "/v1/models": None, "/v1/models/demo-llm": None, "/v2/health/live": None, "/health": None, "/metrics": None,
        "/v2/models/yolo": None, "/v2/models/yolo/ready": None, "/v2/repository/models/yolo/load": None, "/ui/": None,
    }.items():  # fmt: skip
        assert admission.kind_of_path(path) == kind, path


def test_a_kind_that_is_full_is_refused_and_leaves_the_others(admission):
    with admission.work("languages"):
        full = pytest.raises(
            QueueFullError, match=r"at its limit of 1 requests for language models \(router.at_once.languages\)"
        )
        with full, admission.work("languages"):
            pass
        with admission.work("detection"), admission.work("streams"), admission.work("detection"):
            pass
    with admission.work("languages"):
        pass


async def test_requests_beyond_are_refused_unread_and_health_is_answered(admission):
    release, read = asyncio.Event(), []

    async def predict(request):
        read.append(len(await request.body()))
        await release.wait()
        return PlainTextResponse("done")

    async def health(_request):
        return PlainTextResponse("live")

    routes = [Route("/predict/nano", predict, methods=["POST"]), Route("/health", health)]
    app = Starlette(routes=routes, middleware=[Middleware(Admit, admission=admission)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router") as client:
        running = [asyncio.create_task(client.post("/predict/nano", content=b"x")) for _ in range(2)]
        while len(read) < 2:  # noqa: ASYNC110 - both are at work
            await asyncio.sleep(0)
        for _ in range(100):
            refused = await client.post("/predict/nano", content=b"x")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert (await client.get("/health")).text == "live"
        release.set()
        assert [answer.text for answer in await asyncio.gather(*running)] == ["done", "done"]
        assert (await client.post("/predict/nano", content=b"x")).status_code == 200
    assert read == [1, 1, 1]

"""The metrics of every node as one text for Prometheus."""

import asyncio

import httpx
import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from serve_app.router.errors import HANDLERS
from serve_app.router.rest import metrics
from serve_app.router.rest.metrics import Metrics, merge

NODE = """# HELP ray_nv_inference_request_success_total Number of successful requests
# TYPE ray_nv_inference_request_success_total counter
ray_nv_inference_request_success_total{{model="a",node="{node}"}} {count}
# HELP ray_nv_inference_pending_request_count Waiting
# TYPE ray_nv_inference_pending_request_count gauge
ray_nv_inference_pending_request_count{{model="a",node="{node}"}} 0.0
# HELP ray_serve_app_requests_total Requests
# TYPE ray_serve_app_requests_total counter
ray_serve_app_requests_total{{node="{node}",status="200"}} 7.0
"""


def series(text):
    return {
        (sample.name, sample.labels["node"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_nodes_are_merged_family_by_family_and_triton_metrics_have_tritons_names():
    text = merge([NODE.format(node="x", count=3), "", NODE.format(node="y", count=4)])
    assert text.count("# TYPE nv_inference_request_success counter\n") == 1
    assert "\nray_serve_app_requests_total{" in text
    assert "ray_nv_" not in text
    lines = [line.split("{")[0] for line in text.splitlines() if not line.startswith("#")]
    assert lines == sorted(lines, key=lines.index), "a family's series must stand together"
    assert lines.count("nv_inference_request_success") == 2
    found = series(text)
    assert len(found) == 6
    assert found["ray_serve_app_requests_total", "y"] == 7


@pytest.fixture
async def node():
    """A node's agent that counts its requests."""
    asked = []

    async def answer(_request):
        asked.append(1)
        return web.Response(text=NODE.format(node="x", count=len(asked)))

    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/metrics", asked
    await runner.cleanup()


@pytest.fixture
def serve(monkeypatch):
    def over(*addresses):
        monkeypatch.setattr(metrics, "agents", lambda: list(addresses))
        app = Starlette(routes=Metrics().routes(), exception_handlers=HANDLERS)
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router")

    return over


async def test_callers_at_the_same_time_share_one_read(serve, node):
    address, asked = node
    async with serve(address) as client:
        answers = await asyncio.gather(*(client.get("/metrics") for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}
    assert answers[0].headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert len(asked) == 1
    assert series(answers[0].text)["ray_serve_app_requests_total", "x"] == 7


async def test_a_node_that_does_not_answer_is_left_out_and_without_any_the_metrics_are_unavailable(serve, node):
    silent = "http://127.0.0.1:9/metrics"
    async with serve(silent, node[0]) as client:
        answer = await client.get("/metrics")
    assert (answer.status_code, len(series(answer.text))) == (200, 3)
    async with serve(silent) as client:
        answer = await client.get("/metrics")
    assert (answer.status_code, answer.json()) == (503, {"error": "no node's metrics could be read; try again"})

"""What the router counts for a request, and with which labels."""

import asyncio

import pytest
from ray.util import metrics as ray_metrics

from serve_app.telemetry.metrics import RECORD_AFTER_S, RequestMetrics
from serve_app.telemetry.observation import CANCELLED, observed
from serve_app.types import StageTimes


@pytest.fixture
def published(recorded):
    return lambda name: [(labels, value) for found, labels, value in recorded if found == f"serve_app_{name}"]


def test_an_answered_request_is_counted_with_everything_observed(recorded, published):
    with RequestMetrics().observe("rest"):
        seen = observed()
        seen.track, seen.model, seen.received_bytes, seen.sent_bytes = "streaming", "yolo_nano", 60_000, 400
        seen.times = [StageTimes(1, 2, 3, 4, 5), StageTimes(infer=40)]
    labels = {"protocol": "rest", "track": "streaming", "model": "yolo_nano"}
    assert published("requests") == [(labels | {"status": "200"}, 1)]
    ((found, seconds),) = published("request_seconds")
    assert (found, seconds > 0) == (labels, True)
    assert published("received_bytes") == [({"protocol": "rest"}, 60_000)]
    assert published("sent_bytes") == [({"protocol": "rest"}, 400)]
    order = ("decode", "preprocess", "queue", "infer", "postprocess")
    times = dict(zip(order, (1, 2, 3, 4, 5), strict=True)), dict.fromkeys(order, 0) | {"infer": 40}
    assert [(labels["stage"], round(value * 1e3)) for labels, value in published("stage_seconds")] == [
        pair for one in times for pair in one.items()
    ]
    assert not [name for name, _, _ in recorded if name.endswith(("rejected", "cancelled", "retries"))]


def test_refusals_and_retries_have_counters_of_their_own(published):
    with RequestMetrics().observe("openai"):
        seen = observed()
        seen.status, seen.refused, seen.retried = 503, "queue_full", "vision"
    assert published("requests")[0][0]["status"] == "503"
    assert published("rejected") == [({"protocol": "openai", "model": "", "reason": "queue_full"}, 1)]
    assert published("retries") == [({"upstream": "vision"}, 1)]


async def test_a_request_whose_client_disconnects_is_counted_as_cancelled(published):
    async def work():
        with RequestMetrics().observe("kserve-grpc"):
            observed().model = "slow"
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert published("requests")[0][0]["status"] == str(CANCELLED)
    assert published("cancelled") == [({"protocol": "kserve-grpc", "model": "slow"}, 1)]


async def test_concurrent_requests_are_observed_apart_and_with_their_child_tasks(published):
    async def receive():
        observed().received_bytes = 7

    async def request(number):
        with RequestMetrics().observe("rest"):
            await asyncio.sleep(0)
            observed().model = f"model-{number}"
            await asyncio.create_task(receive())
            assert observed().received_bytes == 7

    await asyncio.gather(*(request(number) for number in range(20)))
    assert sorted(labels["model"] for labels, _ in published("requests")) == sorted(f"model-{n}" for n in range(20))


def test_observations_outside_of_a_request_are_dropped(recorded):
    observed().model = "a"
    assert (observed().model, recorded) == ("", [])


async def test_requests_that_end_together_are_recorded_together_soon_after(monkeypatch):
    records = []
    monkeypatch.setattr(
        ray_metrics.Metric, "_record", lambda metric, value, tags: records.append((metric._name, value))
    )
    counted = RequestMetrics()
    for _ in range(3):
        with counted.observe("rest"):
            observed().sent_bytes = 10
    assert records == []
    await asyncio.sleep(2 * RECORD_AFTER_S)
    assert [record for record in records if record[0] != "serve_app_request_seconds"] == [
        ("serve_app_requests", 3), ("serve_app_sent_bytes", 30),
    ]  # fmt: skip
    assert len(records) == 5

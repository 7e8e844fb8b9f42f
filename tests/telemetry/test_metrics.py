"""What the router counts of a request, and under which labels."""

import asyncio

import pytest

from serve_app.telemetry.metrics import RequestMetrics
from serve_app.telemetry.observation import CANCELLED, observed
from serve_app.types import StageTimes


def named(records, name):
    return [(tags, value) for found, tags, value in records if found == name]


def test_an_answered_request_is_counted_with_what_was_learned_on_the_way(recorded):
    with RequestMetrics().observe("rest"):
        seen = observed()
        seen.track, seen.model, seen.received_bytes, seen.sent_bytes = "streaming", "yolo_nano", 60_000, 400
        seen.times = [StageTimes(1, 2, 3, 4, 5), StageTimes(infer=40)]
    labels = {"protocol": "rest", "track": "streaming", "model": "yolo_nano"}
    assert named(recorded, "serve_app_requests") == [(labels | {"status": "200"}, 1)]
    ((tags, seconds),) = named(recorded, "serve_app_request_seconds")
    assert tags == labels
    assert 0 < seconds < 5
    assert named(recorded, "serve_app_received_bytes") == [({"protocol": "rest"}, 60_000)]
    assert named(recorded, "serve_app_sent_bytes") == [({"protocol": "rest"}, 400)]
    stages = [(tags["stage"], value) for tags, value in named(recorded, "serve_app_stage_seconds")]
    order = ("decode", "preprocess", "queue", "infer", "postprocess")
    assert stages[:5] == [(stage, pytest.approx(ms / 1e3)) for ms, stage in enumerate(order, 1)]
    assert stages[5:] == [(stage, 0.04 if stage == "infer" else 0) for stage in order]
    assert not [name for name, _, _ in recorded if name.endswith(("rejected", "cancelled", "retries"))]


def test_a_refusal_and_a_retry_are_counted_beside_the_request(recorded):
    with RequestMetrics().observe("openai"):
        seen = observed()
        seen.status, seen.refused, seen.retried = 503, "queue_full", "vision"
    assert named(recorded, "serve_app_requests")[0][0]["status"] == "503"
    assert named(recorded, "serve_app_rejected") == [({"protocol": "openai", "model": "", "reason": "queue_full"}, 1)]
    assert named(recorded, "serve_app_retries") == [({"upstream": "vision"}, 1)]


async def test_a_caller_who_leaves_is_counted_as_cancelled(recorded):
    async def work():
        with RequestMetrics().observe("kserve-grpc"):
            observed().model = "slow"
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert named(recorded, "serve_app_requests")[0][0]["status"] == str(CANCELLED)
    assert named(recorded, "serve_app_cancelled") == [({"protocol": "kserve-grpc", "model": "slow"}, 1)]


async def test_requests_at_the_same_time_are_told_apart(recorded):
    async def one(number):
        with RequestMetrics().observe("rest"):
            await asyncio.sleep(0)
            observed().model = f"model-{number}"
            await asyncio.create_task(deeper())
            assert observed().received_bytes == 7

    async def deeper():
        observed().received_bytes = 7

    await asyncio.gather(*(one(number) for number in range(20)))
    models = [tags["model"] for tags, _ in named(recorded, "serve_app_requests")]
    assert sorted(models) == sorted(f"model-{number}" for number in range(20))


def test_what_is_noted_where_nobody_observes_is_forgotten(recorded):
    observed().model = "a"
    assert observed().model == ""
    assert recorded == []

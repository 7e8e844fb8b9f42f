"""The pressure and the metrics of a real Triton server."""

import asyncio

import numpy as np
import pytest

from serve_app.errors import QueueFullError
from serve_app.telemetry.pressure import PENDING, QUEUE_MS, REJECTED_PER_S, SERVED_PER_S, STALLED
from serve_app.triton.metrics import TritonMetrics
from serve_app.triton.protocol import Protocol
from serve_app.types.tensors import InferRequest, Tensor


@pytest.fixture(scope="module")
def engine(embedded_models, run_models):
    return run_models(embedded_models, "slow", "chain", "identity")


@pytest.fixture
def protocol(engine):
    return Protocol(engine)


@pytest.fixture
def measuring(engine, protocol):
    return TritonMetrics(engine, protocol)


def ask(model, name, *values):
    array = np.array([values] if model == "slow" else values, np.float32)
    return InferRequest(model, inputs=(Tensor(name, "FP32", array.shape, array.tobytes()),))


def slow(protocol, seconds, count):
    return [asyncio.create_task(protocol.infer(ask("slow", "SECONDS", seconds))) for _ in range(count)]


def served(protocol):
    return sum(row["inference_stats"]["success"]["count"] for row in protocol.statistics())


async def booked(protocol, count):
    """Triton counts a request after its answer."""
    async with asyncio.timeout(5):
        while served(protocol) < count:  # noqa: ASYNC110 - Triton has no event for it
            await asyncio.sleep(0.01)


async def test_an_idle_engine_has_no_pressure(measuring):
    assert set(measuring.pressure().values()) == {0.0}


async def test_requests_behind_others_wait_and_are_stalled_until_one_is_through(measuring, protocol):
    before = served(protocol)
    asked = slow(protocol, 0.5, 4)
    await asyncio.sleep(0.2)
    pressure = measuring.pressure()
    assert (pressure[PENDING], pressure[STALLED], pressure[SERVED_PER_S], pressure[QUEUE_MS]) == (3, 3, 0, 0)
    await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(0.1)
    pressure = measuring.pressure()
    assert pressure[PENDING] > 0
    assert pressure[STALLED] == 0
    assert pressure[SERVED_PER_S] > 0
    await asyncio.gather(*asked)
    await booked(protocol, before + 4)
    pressure = measuring.pressure()
    assert (pressure[PENDING], pressure[STALLED], pressure[REJECTED_PER_S]) == (0, 0, 0)
    assert pressure[QUEUE_MS] > 400
    assert set(measuring.pressure().values()) == {0.0}


async def test_requests_refused_by_a_full_queue_are_counted(measuring, protocol):
    before = served(protocol)
    answers = await asyncio.gather(*slow(protocol, 0.05, 30), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, QueueFullError)]
    assert len(refused) > 10
    await booked(protocol, before + len(answers) - len(refused))
    pressure = measuring.pressure()
    assert pressure[REJECTED_PER_S] > pressure[SERVED_PER_S] > 0


async def test_an_ensemble_counts_as_its_steps_do(engine, measuring, protocol):
    before = served(protocol)
    name = next(tensor["name"] for tensor in protocol.metadata("chain", -1)["inputs"])
    await protocol.infer(ask("chain", name, 1.0, 2.0))
    steps = engine.repository.selected["chain"].steps
    await booked(protocol, before + len(steps) + 1)
    window = measuring._window
    window._read_at = window._clock() - 1
    assert measuring.pressure()[SERVED_PER_S] == pytest.approx(len(steps), rel=0.05)


async def test_tritons_metrics_of_every_model_go_to_rays_pipeline(measuring, protocol, recorded):
    await protocol.infer(ask("identity", protocol.metadata("identity", -1)["inputs"][0]["name"], 1.0))
    measuring.publish()
    labels = [tags for name, tags, value in recorded if name == "nv_inference_request_success" and value]
    assert {"model": "identity", "version": "1"} in labels
    assert "python_backend_proof" not in {tags["model"] for tags in labels}
    names = {name for name, _, _ in recorded}
    batches = [(tags, value) for name, tags, value in recorded if name == "serve_app_batches"]
    assert ({"model": "identity", "version": "1", "batch_size": "1"}, 1) in [
        (tags, min(value, 1)) for tags, value in batches
    ]
    assert {"nv_inference_queue_duration_us", "nv_inference_exec_count", "nv_inference_pending_request_count"} <= names


async def test_a_refusal_does_not_show_a_generated_request_id(engine, monkeypatch):
    monkeypatch.setattr("serve_app.triton.engine.request_id", lambda: "ours")
    seconds = {"SECONDS": np.array([[0.05]], np.float32)}
    answers = await asyncio.gather(*(engine.infer("slow", seconds) for _ in range(30)), return_exceptions=True)
    refused = {str(answer) for answer in answers if isinstance(answer, QueueFullError)}
    assert refused
    assert not [message for message in refused if "request id" in message]

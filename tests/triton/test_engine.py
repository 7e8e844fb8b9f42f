"""The facade over a real Triton server in this process."""

import asyncio

import numpy as np
import psutil
import pytest

from serve_app.errors import (
    DeadlineExceededError,
    EngineError,
    InvalidRequestError,
    ModelLoadError,
    NotFoundError,
    ReplicaKilledError,
    ReplicaLostError,
    UnavailableError,
)
from serve_app.settings import TritonSettings
from serve_app.triton.engine import Engine
from serve_app.triton.protocol import Protocol
from serve_app.triton.repository import ModelRepository

QUEUE = """
dynamic_batching {
  max_queue_delay_microseconds: 20000
  default_queue_policy { timeout_action: REJECT default_timeout_microseconds: 60000000 max_queue_size: 3
    allow_timeout_override: true }
}
"""


def engine_over(repository, **changes):
    settings = TritonSettings(name="test", **changes)
    return Engine(ModelRepository(repository.path, settings.models, []), settings)


@pytest.fixture
def running(repository):
    """An engine over what a test adds; stopped whatever happens."""
    engines = []

    def run(**changes):
        engine = engine_over(repository, **changes)
        engines.append(engine)
        engine.start()
        return engine

    yield run
    for engine in engines:
        engine.stop()


def number(value):
    return {"x": np.array([[value]], np.float32)}


async def test_an_answer_is_cached_if_the_model_and_the_deployment_enable_it(repository, running):
    repository.add("kept", more="response_cache { enable: true } dynamic_batching { }")
    for cache_mib, asked in ((8, 1), (0, 3)):
        engine = running(cache_mib=cache_mib)
        answers = [await engine.infer("kept", number(21)) for _ in range(3)]
        assert [answer.outputs["y"].tolist() for answer in answers] == [[[42.0]]] * 3
        (row,) = Protocol(engine).statistics("kept")
        assert row["inference_stats"]["success"]["count"] == 3
        assert row["execution_count"] == asked


async def test_an_answer_has_its_times(repository, running):
    repository.add("double")
    engine = running()
    answer = await engine.infer("double", number(21))
    assert answer.outputs["y"].tolist() == [[42.0]]
    assert [step.model for step in answer.steps] == ["double"]
    assert answer.infer_ms > 0
    assert answer.queue_ms >= 0
    engine.require_health()


async def test_an_ensembles_answer_has_its_steps_in_order(repository, running):
    repository.add("one").add("two").add_ensemble("both", "one", "two")
    engine = running()
    answer = await engine.infer("both", number(1))
    assert answer.outputs["y"].tolist() == [[4.0]]
    assert [step.model for step in answer.steps] == ["one", "two"]


async def test_requests_at_the_same_time_become_a_batch(repository, running):
    repository.add("double", more=QUEUE.replace("max_queue_size: 3", "max_queue_size: 0"))
    engine = running()
    answers = await asyncio.gather(*(engine.infer("double", number(i)) for i in range(16)))
    assert [float(answer.outputs["y"][0, 0]) for answer in answers] == [2.0 * i for i in range(16)]
    (statistics,) = engine.model("double").statistics()["model_stats"]
    assert statistics["execution_count"] < statistics["inference_count"] == 16
    assert max(entry["batch_size"] for entry in statistics["batch_stats"]) > 1


async def test_a_full_queue_is_unavailable_and_recovers(repository, running):
    repository.add("double", more=QUEUE)
    engine = running()
    results = await asyncio.gather(*(engine.infer("double", number(-1.0)) for _ in range(24)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, UnavailableError)]
    assert refused
    assert len(refused) < 24
    assert "Exceeds maximum queue size" in refused[0].message
    assert (await engine.infer("double", number(2))).outputs["y"].tolist() == [[4.0]]


async def test_a_request_that_waits_longer_than_its_timeout_is_refused(repository, running):
    repository.add("double", more=QUEUE)
    engine = running()
    slow = asyncio.create_task(engine.infer("double", number(-1.0)))
    await asyncio.sleep(0.2)
    with pytest.raises((UnavailableError, DeadlineExceededError), match="timeout expired"):
        await engine.infer("double", number(1), timeout_us=10_000)
    await slow


async def test_a_caller_that_gives_up_cancels_its_request(repository, running):
    repository.add("double", more=QUEUE)
    engine = running()
    slow = asyncio.create_task(engine.infer("double", number(-1.5)))
    await asyncio.sleep(0.2)
    waiting = asyncio.create_task(engine.infer("double", number(1)))
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await slow
    await asyncio.sleep(0.5)
    (statistics,) = engine.model("double").statistics()["model_stats"]
    assert statistics["inference_stats"]["success"]["count"] == 1


async def test_a_wrong_tensor_or_model_is_an_error_with_tritons_message(repository, running):
    repository.add("double")
    engine = running()
    for inputs, reason in (
        ({"z": np.zeros((1, 1), np.float32)}, "unexpected inference input 'z'"),
        ({"x": np.zeros((1, 1), np.float64)}, "data-type"),
        ({"x": np.zeros((1, 2), np.float32)}, "shape"),
        ({"x": np.zeros((9, 1), np.float32)}, "batch-size must be <= 4"),
        ({}, "expected 1 inputs but got 0"),
    ):
        with pytest.raises(InvalidRequestError, match=reason):
            await engine.infer("double", inputs)
    with pytest.raises((NotFoundError, InvalidRequestError), match="'nobody'"):
        await engine.infer("nobody", number(1))
    assert (await engine.infer("double", number(1))).outputs["y"].tolist() == [[2.0]]


def test_a_model_that_cannot_be_loaded_is_named_with_the_reason_in_one_line(repository, config_template):
    repository.add("good").add("bad", model_py="raise ValueError('no such engine: model.xml')")
    refused = config_template.format(name="bad", more="").replace("dims: [ 1 ]", "dims: [ 0 ]")
    for config, reason in (
        (None, r"model 'bad' can't be loaded: .*no such engine: model.xml"),
        (refused, "model 'bad' can't be loaded"),
        ('name: "bad"\nbackend "python"\n', r"bad/config\.pbtxt: 2:9"),  # before anything starts
    ):
        if config:
            (repository.path / "bad" / "config.pbtxt").write_text(config)
        with pytest.raises(ModelLoadError, match=reason) as caught:
            engine_over(repository).start()
        assert "\n" not in caught.value.message


async def test_instances_come_from_the_settings_for_ensembles_too(repository, running):
    repository.add("one").add("two").add_ensemble("both", "one", "two")
    engine = running(instances={"two": 2})
    assert (await engine.infer("both", number(1))).outputs["y"].tolist() == [[4.0]]
    assert engine.model("two").config()["instance_group"][0]["count"] == 2
    assert engine.model("one").config()["instance_group"][0]["count"] == 1


def test_instances_of_a_model_that_is_not_served_are_refused(repository):
    repository.add("one")
    with pytest.raises(ModelLoadError, match="instances: no model two is served here"):
        engine_over(repository, instances={"two": 2}).start()


async def test_only_the_models_of_the_deployment_are_loaded(repository, running):
    repository.add("one").add("two")
    engine = running(models=("one",))
    states = {entry["name"]: entry["state"] for entry in engine.index()}
    assert states["one"] == "READY"
    assert states.get("two") != "READY"


async def test_a_polled_repository_gains_a_version_and_loses_a_model(repository, running):
    repository.add("one", more="version_policy { latest { num_versions: 1 } }").add("two")
    engine = running(control_mode="poll")
    tripled = (repository.path / "one" / "1" / "model.py").read_text().replace("x * 2", "x * 3")
    (repository.path / "one" / "2").mkdir()
    (repository.path / "one" / "2" / "model.py").write_text(tripled)
    (repository.path / "two").rename(repository.path.parent / "two")
    engine.poll()
    assert (await engine.infer("one", number(1))).outputs["y"].tolist() == [[3.0]]
    with pytest.raises((NotFoundError, InvalidRequestError, UnavailableError)):
        await engine.infer("two", number(1))


async def test_a_model_is_loaded_and_unloaded_with_another_config(repository, running):
    repository.add("one").add("two")
    engine = running(control_mode="explicit", models=("one",))
    engine.load("two")
    assert (await engine.infer("two", number(1))).outputs["y"].tolist() == [[2.0]]
    engine.unload("two")
    with pytest.raises((NotFoundError, InvalidRequestError, UnavailableError)):
        await engine.infer("two", number(1))


ENDS = {"os.kill(os.getpid(), 9)": ReplicaKilledError, "os.abort()": EngineError}


@pytest.mark.parametrize(("end", "error"), ENDS.items(), ids=["killed", "own"])
async def test_a_stub_that_ends_fails_its_request_and_the_health_check(repository, running, end, error):
    """Only if it was killed the request is one that may be tried elsewhere; later ones always are."""
    repository.add("dying", model_py=DYING + end)
    engine = running()
    engine.require_health()
    with pytest.raises(error, match=r"'dying'.*") as caught:
        await engine.infer("dying", number(1))
    assert type(caught.value) is error
    with pytest.raises(EngineError, match="not healthy"):
        engine.require_health()
    with pytest.raises(ReplicaLostError, match="will be replaced"):
        await engine.infer("dying", number(1))


DYING = """
import os

class TritonPythonModel:
    def execute(self, requests):
        """


async def test_a_stopped_engine_is_unavailable_and_can_be_stopped_again(repository, running):
    repository.add("one")
    engine = running()
    engine.stop()
    engine.stop()
    calls = (
        engine.index, engine.metrics, engine.server_metadata, engine.require_health, engine.poll,
        lambda: engine.load("one"), lambda: engine.unload("one"), lambda: engine.model("one"),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(UnavailableError, match="the Triton server is stopping"):
            call()
    with pytest.raises(UnavailableError, match="the Triton server is stopping"):
        await engine.infer("one", number(1))


@pytest.mark.parametrize("fails", ["_require_no_failure", "_prove_python_backend"])
def test_a_start_that_fails_leaves_no_server_and_no_process_behind(repository, monkeypatch, fails):
    repository.add("one")
    engine = engine_over(repository)
    before = psutil.Process().children(recursive=True)

    def fail():
        raise EngineError("the proof failed")

    monkeypatch.setattr(engine, fails, fail)
    with pytest.raises(EngineError, match="the proof failed"):
        engine.start()
    assert [child for child in psutil.Process().children(recursive=True) if child not in before] == []
    with pytest.raises(UnavailableError, match="the Triton server is stopping"):
        engine.index()


def test_a_start_that_fails_raises_its_own_error_even_if_the_stop_fails_too(repository, monkeypatch):
    repository.add("one")
    engine = engine_over(repository)
    stop = engine.stop

    def fail(problem):
        raise problem

    monkeypatch.setattr(engine, "_require_no_failure", lambda: fail(ModelLoadError("no engine")))
    monkeypatch.setattr(engine, "stop", lambda: fail(UnavailableError("requests did not end")))
    try:
        with pytest.raises(ModelLoadError, match="no engine"):
            engine.start()
    finally:
        stop()

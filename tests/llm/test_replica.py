"""A replica's answers to the router: generation, control, readiness, and its life with the engine."""

import asyncio
import time
from types import SimpleNamespace

import pytest
from ray.serve.llm.deployment import LLMServer
from vllm.v1.engine.exceptions import EngineDeadError

from serve_app.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    ModelError,
    ModelLoadError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from serve_app.llm import errors, replica
from serve_app.llm.contracts import pack_texts
from serve_app.llm.engine import Engine
from serve_app.llm.replica import LanguageModel
from serve_app.types.changes import ModelChange
from serve_app.types.tensors import InferRequest, Tensor


def ask(prompt="ask", version=-1, deadline=None, stream=False, tensors=(), **parameters):
    inputs = [pack_texts("text_input", [prompt]), Tensor("stream", "BOOL", (1,), bytes([stream])), *tensors]
    return InferRequest("demo-llm", version, "mine", tuple(inputs), parameters=parameters, deadline=deadline)


def texts(answer):
    return [element.decode() for element in answer.outputs[0].elements()]


async def collect(answers):
    return [answer async for answer in answers]


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


async def test_an_inference_has_one_answer(start_replica, output, counts):
    model, client = start_replica(output(" one", finished=True))
    answer = await model.infer(ask(max_tokens=5))
    assert (texts(answer), answer.final, answer.id, answer.model) == (["ask one"], True, "mine", "demo-llm")
    prompt, parameters, *_ = client.requests[0]
    assert (prompt, parameters.max_tokens) == ("ask", 5)
    await settle()
    assert (client.closed, counts(model.engine.statistics)) == (1, (1, 0, 0))


async def test_a_stream_has_an_answer_for_each_output_until_the_last(start_replica, output, counts):
    model, client = start_replica(output(" a"), output(" b"), output("", finished=True), output("never"))
    found = await collect(model.stream(ask(stream=True)))
    assert [(texts(answer), answer.final) for answer in found] == [([" a"], False), ([" b"], False), ([""], True)]
    assert (client.closed, counts(model.engine.statistics)) == (1, (1, 0, 0))
    model, _ = start_replica(output("b", index=1), output("a", finished=True))
    assert [texts(answer) for answer in await collect(model.stream(ask(stream=True, n=2)))] == [["", "b"], ["a", ""]]


async def test_requests_with_the_same_id_have_ids_of_their_own_in_the_engine(start_replica, output):
    model, client = start_replica(output(finished=True))
    await asyncio.gather(model.infer(ask()), model.infer(ask()))
    first, second = (request_id for _, _, request_id, _ in client.requests)
    assert (first[:5], second[:5], first == second) == ("mine-", "mine-", False)


async def test_an_adapter_is_passed_to_the_engine(start_replica, output):
    model, client = start_replica(output(finished=True), adapters=["legal", "poems"])
    await model.infer(ask(lora_name="legal"))
    assert client.requests[0][-1] == "lora legal"


async def test_requests_that_can_not_be_served_are_refused_before_they_reach_the_engine(start_replica, output):
    plain, adapters, embedding = {}, {"adapters": ["legal", "poems"]}, {"generates": False}
    late = "the deadline passed before model 'demo-llm' was reached"
    for options, request, kind, message in (
        (plain, InferRequest("demo-llm"), InvalidRequestError, "expected exactly one of the inputs PROMPT and text_"),
        (plain, ask(""), InvalidRequestError, "input 'text_input' must not be empty"),
        (plain, ask(tempature=1), InvalidRequestError, "unknown sampling parameter 'tempature'; did you mean 'temper"),
        (plain, ask(n=10**6), InvalidRequestError, "sampling parameters: n must be at most"),
        (plain, ask(lora_name="x"), NotFoundError, "adapter 'x' not found; available: none"),
        (adapters, ask(lora_name="x"), NotFoundError, "adapter 'x' not found; available: legal, poems"),
        (plain, ask(version=2), NotFoundError, "model 'demo-llm' has no version 2; available: 1"),
        (plain, ask(version=0), NotFoundError, "model 'demo-llm' has no version 0; available: 1"),
        (embedding, ask(), UnsupportedError, "model 'demo-llm' does not generate text; use /v1/embeddings"),
        (plain, ask(deadline=time.time() - 1), DeadlineExceededError, late),
    ):
        model, client = start_replica(output(finished=True), **options)
        for call in (model.infer(request), anext(model.stream(request))):
            with pytest.raises(kind) as refusal:
                await call
            assert (type(refusal.value), client.requests) == (kind, [])
            assert refusal.value.message.startswith(message)
    with pytest.raises(UnsupportedError, match="streams through ModelStreamInfer or generate_stream only"):
        await model.infer(ask(stream=True))


async def test_a_deadline_ends_a_running_generation_even_if_the_reader_was_slow(start_replica, output, counts):
    message = "the deadline passed while model 'demo-llm' was at work"
    for stream, pause_s in ((False, 0), (True, 0), (True, 0.25)):
        model, client = start_replica(*[output("a")] * stream, asyncio.Event())
        request = ask(stream=stream, deadline=time.time() + 0.2)
        answers = model.stream(request)
        if stream:
            assert texts(await anext(answers)) == ["a"]
        await asyncio.sleep(pause_s)
        with pytest.raises(DeadlineExceededError) as passed:
            await (anext(answers) if stream else model.infer(request))
        assert pause_s or passed.value.message == message
        assert (client.closed, counts(model.engine.statistics)) == (1, (0, 1, 0))


async def test_a_caller_that_leaves_ends_the_generation(start_replica, output, counts):
    for deadline in (None, 2e10):
        model, client = start_replica(asyncio.Event())
        call = asyncio.create_task(model.infer(ask(deadline=deadline)))
        await settle()
        assert counts(model.engine.statistics) == (0, 0, 1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (client.closed, counts(model.engine.statistics)) == (1, (0, 1, 0))
    model, client = start_replica(output("a"), asyncio.Event())
    answers = model.stream(ask(stream=True))
    await anext(answers)
    await answers.aclose()
    assert (client.closed, counts(model.engine.statistics)) == (1, (0, 1, 0))


async def test_an_engine_that_stops_without_a_final_output_has_failed(start_replica, output):
    for steps in ((), (output("a"),)):
        model, client = start_replica(*steps)
        with pytest.raises(ModelError, match="model 'demo-llm' failed"):
            await collect(model.stream(ask(stream=True)))
        assert client.closed == 1


async def test_a_replica_describes_itself_and_version_1(start_replica):
    model, client = start_replica(adapters=["legal"])
    row = {"name": "demo-llm", "version": "1", "state": "READY", "reason": ""}
    assert await model.index() == ("r1", [row])
    assert await model.describe() == {"models": [row], "max_length": 128, "adapters": ["legal"], "running": 0}
    for version in (-1, 1):
        assert await model.ready("demo-llm", version)
        assert (await model.metadata("demo-llm", version))["name"] == "demo-llm"
        assert (await model.config("demo-llm", version))["backend"] == "vllm"
        assert [row["inference_count"] for row in await model.statistics("demo-llm", version)] == [0]
    assert not await model.ready("demo-llm", 2)
    for call in (model.metadata, model.config):
        with pytest.raises(NotFoundError, match="has no version 2"):
            await call("demo-llm", 2)
    with pytest.raises(InvalidRequestError, match="requested model version 2 of 'demo-llm' is not available"):
        await model.statistics("demo-llm", 2)
    client.errored = True
    assert not await model.ready("demo-llm", -1)
    dead = row | {"state": "UNAVAILABLE", "reason": "the engine died"}
    assert (await model.describe())["models"] == [dead]


async def test_a_language_model_can_be_neither_loaded_nor_unloaded(start_replica):
    model, _ = start_replica()
    for action in ("load", "unload"):
        replica_id, problem = await model.change(ModelChange("demo-llm", action))
        assert (replica_id, type(problem)) == ("r1", UnsupportedError)
        assert problem.message == (
            "'demo-llm' is a language model, which can't be loaded or unloaded; change llms in the configuration"
        )


async def test_a_warm_up_asks_a_model_that_generates_and_no_other(start_replica, output):
    done, broken = output(finished=True), RuntimeError("internals")
    for step, generates, state, calls in (
        (done, True, "ready", 1),
        (broken, True, "failed", 1),
        (broken, False, "ready", 0),
    ):
        model, client = start_replica(step, generates=generates)
        assert await model.warming() == {"demo-llm": {"state": "pending"}}
        await model.start_warming()
        await model._warmup._task
        assert ((await model.warming())["demo-llm"]["state"], client.closed) == (state, calls)


async def test_a_replica_is_ready_once_its_engine_has_answered(start_engine, output, monkeypatch):
    for step, ready in ((output(finished=True), True), (RuntimeError("a mistake"), False)):

        async def build(model, config, engine_cls, step=step):
            assert engine_cls is Engine
            model.engine, _ = start_engine(step)

        monkeypatch.setattr(LLMServer, "__init__", build)
        model = object.__new__(LanguageModel)
        starting = asyncio.create_task(model.__init__(SimpleNamespace(model_id="demo-llm", experimental_configs={})))
        await asyncio.wait({starting})
        assert (starting.exception() is None, hasattr(model, "_watching")) == (ready, ready)
        assert model.engine._engine_client.closed == 1
        if ready:
            model._watching.cancel()


async def test_a_model_that_can_not_be_loaded_raises_the_reason_from_the_engines_log(tmp_path, monkeypatch):
    log = tmp_path / "replica.err"
    log.write_text("(EngineCore pid=1) ValueError: of an earlier start\n")
    monkeypatch.setattr(errors, "STDERR", log)

    async def fail(*_arguments, **_named):
        with log.open("a") as more:
            more.write("(EngineCore pid=2) ERROR 11-21 12:00:00 [core.py:1] ValueError: no memory is left\n")
        raise RuntimeError("Engine core initialization failed. See root cause above.")

    monkeypatch.setattr(LLMServer, "__init__", fail)
    model = object.__new__(LanguageModel)
    with pytest.raises(ModelLoadError) as caught:
        await model.__init__(SimpleNamespace(model_id="demo-llm", experimental_configs={}))
    assert caught.value.message == "model 'demo-llm' can't be loaded: no memory is left"


async def test_a_replica_exits_when_its_engine_dies_and_not_before(start_replica, monkeypatch):
    codes = []
    monkeypatch.setattr(replica, "WATCH_INTERVAL_S", 0)
    monkeypatch.setattr(replica, "EXIT_DELAY_S", 0)
    monkeypatch.setattr(replica.os, "_exit", codes.append)
    model, client = start_replica()
    watching = asyncio.create_task(model._watch())
    await settle()
    assert (watching.done(), codes) == (False, [])
    client.errored = True
    await watching
    assert codes == [1]


async def test_health_checks_and_autoscaling_reports_reach_the_engine(start_replica):
    model, client = start_replica()
    await model.check_health()
    assert await model.record_autoscaling_stats() == {"pending": 0.0, "running": 0.0, "kv_cache_use": 0.0}

    async def raise_dead():
        raise EngineDeadError()

    client.check_health = raise_dead
    with pytest.raises(UnavailableError, match="the engine of model 'demo-llm' died; try again"):
        await model.check_health()

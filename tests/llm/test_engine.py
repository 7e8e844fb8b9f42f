"""A replica's life with a faked engine: how it starts, warms up, tells of itself, counts and dies."""

import asyncio
from types import SimpleNamespace

import pytest
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from ray.serve.llm.deployment import LLMServer
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.stats import SchedulerStats

from serve_app.errors import ModelLoadError, UnavailableError, UnsupportedError
from serve_app.llm import reasons
from serve_app.llm import replica as module
from serve_app.llm.engine import Engine
from serve_app.llm.load import Load
from serve_app.llm.replica import LanguageModel
from serve_app.llm.statistics import Statistics
from serve_app.telemetry.warmup import WarmUp
from serve_app.types.changes import ModelChange

TIMES = SimpleNamespace(queued_ts=1.0, scheduled_ts=1.5, first_token_ts=2.5, last_token_ts=4.5)
LAST = SimpleNamespace(finished=True, metrics=TIMES)
FIRST = SimpleNamespace(finished=False, metrics=TIMES)


class Client:
    """vLLM's, as far as it is asked here: outputs to yield and errors to raise."""

    def __init__(self, *steps):
        self.steps, self.errored, self.closed, self.stopped = steps, False, 0, 0
        self.model_config = SimpleNamespace(max_model_len=128)
        self.logger_manager = SimpleNamespace(stat_loggers=[])

    async def generate(self, *arguments, **named):
        try:
            for step in self.steps:
                if isinstance(step, BaseException):
                    raise step
                yield step
        finally:
            self.closed += 1

    async def check_health(self):
        pass

    def shutdown(self):
        self.stopped += 1


@pytest.fixture
def start(monkeypatch):
    """An engine that has started over the client it is given."""

    def begin(client, generates=True):
        monkeypatch.setattr(VLLMEngine, "_start_async_llm_engine", lambda *_: client)
        engine = object.__new__(Engine)
        engine.statistics, engine.load, engine._token_receiver = Statistics(), Load(), None
        engine._engine_client = engine._start_async_llm_engine(None, None, None)
        engine._oai_models = SimpleNamespace(lora_requests={"legal": "lora"})
        engine._oai_serving_completion = object() if generates else None
        return engine

    return begin


@pytest.fixture
def serving(start, monkeypatch):
    """A replica that has started, without what its constructor does."""
    context = SimpleNamespace(replica_id=SimpleNamespace(unique_id="r1"))
    monkeypatch.setattr(module.serve, "get_replica_context", lambda: context)

    def begin(*steps, **more):
        model = object.__new__(LanguageModel)
        model._name, model.engine = "demo-llm", start(Client(*steps), **more)
        model._warming = WarmUp({"demo-llm": model._probe})
        return model

    return begin


async def collect(outputs):
    return [output async for output in outputs]


def counts(engine):
    stages = engine.statistics.row("demo-llm")["inference_stats"]
    return stages["success"]["count"], stages["fail"]["count"], engine.statistics.running


async def test_whoever_asks_vllms_client_is_counted(start):
    engine = start(client := Client(FIRST, LAST))
    assert await collect(client.generate("ask", None, "id", priority=1)) == [FIRST, LAST]
    assert await collect(engine.generate("ask", None, "id")) == [FIRST, LAST]
    assert counts(engine) == (2, 0, 0)
    stats = engine.statistics.row("demo-llm")["inference_stats"]
    assert [stats[stage]["ns"] for stage in ("queue", "compute_input", "compute_infer")] == [
        10**9,
        2 * 10**9,
        4 * 10**9,
    ]


async def test_without_times_of_the_engine_a_whole_generation_is_done(start):
    engine = start(Client(SimpleNamespace(finished=True, metrics=None)))
    await collect(engine.generate("ask", None, "id"))
    assert counts(engine) == (1, 0, 0)


async def test_what_is_never_read_was_never_asked(start):
    engine = start(client := Client(LAST))
    outputs = engine.generate("ask", None, "id")
    await outputs.aclose()
    assert (counts(engine), client.closed) == ((0, 0, 0), 0)


@pytest.mark.parametrize(("step", "expected"), [(FIRST, (0, 1, 0)), (LAST, (1, 0, 0))])
async def test_who_leaves_closes_vllms_generator_at_once(start, step, expected):
    engine = start(client := Client(step, FIRST))
    outputs = engine.generate("ask", None, "id")
    await anext(outputs)
    assert (client.closed, engine.statistics.running) == (0, 1)
    await outputs.aclose()
    assert (client.closed, counts(engine)) == (1, expected)


@pytest.mark.parametrize("problem", [RuntimeError("a mistake"), asyncio.CancelledError()])
async def test_a_generation_that_breaks_has_failed(start, problem):
    engine = start(client := Client(FIRST, problem))
    with pytest.raises(type(problem)):
        await collect(engine.generate("ask", None, "id"))
    assert (client.closed, counts(engine)) == (1, (0, 1, 0))


async def test_an_engine_stops_its_client_once_there_is_one(start):
    engine = start(client := Client())
    await engine.shutdown()
    assert client.stopped == 1
    engine._engine_client = None
    await engine.shutdown()


async def test_a_replica_tells_of_itself(serving):
    model = serving()
    state = {"name": "demo-llm", "version": "1", "state": "READY", "reason": ""}
    assert await model.index() == ("r1", [state])
    told = {"models": [state], "max_length": 128, "adapters": ["legal"], "running": 0}
    assert await model.describe() == told
    assert [row["inference_count"] for row in await model.statistics()] == [0]


async def test_a_replica_whose_engine_is_dead_says_so(serving):
    model = serving()
    model.engine._engine_client.errored = True
    assert not await model.ready("demo-llm", -1)
    assert (await model.index())[1][0] | {"name": ""} == {
        "name": "", "version": "1", "state": "UNAVAILABLE", "reason": "died",
    }  # fmt: skip
    assert (await model.describe())["models"][0]["state"] == "UNAVAILABLE"


async def test_a_language_model_is_neither_loaded_nor_unloaded(serving):
    for action in ("load", "unload"):
        replica, problem = await serving().change(ModelChange("demo-llm", action))
        assert (replica, type(problem)) == ("r1", UnsupportedError)
        assert problem.message == "'demo-llm' is a language model; the configuration says which are served"


@pytest.mark.parametrize(("steps", "state"), [((LAST,), "ready"), ((RuntimeError("internals"),), "failed")])
async def test_a_warm_up_asks_the_engine_and_tells_how_it_went(serving, steps, state):
    model = serving(*steps)
    assert await model.warming() == {"demo-llm": {"state": "pending"}}
    await model.start_warming()
    await model._warming._task
    told = (await model.warming())["demo-llm"]
    assert told["state"] == state
    assert told.get("error") in (None, "the log says why")
    assert model.engine._engine_client.closed == 1


async def test_a_model_that_only_embeds_is_warm_unasked(serving):
    model = serving(RuntimeError("never"), generates=False)
    await model.start_warming()
    await model._warming._task
    assert (await model.warming())["demo-llm"]["state"] == "ready"


async def test_a_replica_ends_when_its_engine_has_died_and_not_before(serving, monkeypatch):
    codes = []
    monkeypatch.setattr(module, "WATCH_INTERVAL_S", 0.001)
    monkeypatch.setattr(module, "LAST_WORDS_S", 0.001)
    monkeypatch.setattr(module.os, "_exit", codes.append)
    model = serving()
    watching = asyncio.create_task(model._watch())
    await asyncio.sleep(0.02)
    assert (watching.done(), codes) == (False, [])
    model.engine._engine_client.errored = True
    await watching
    assert codes == [1]


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (RuntimeError("Engine core initialization failed. See root cause above."), "no memory is left"),
        (ValueError("dtype\nfloat8"), "dtype float8"),
        (TimeoutError(), "TimeoutError"),
    ],
)
async def test_a_model_that_can_not_be_loaded_is_named_with_the_reason(tmp_path, monkeypatch, problem, message):
    log = tmp_path / "replica.err"
    log.write_text("(EngineCore pid=1) ValueError: of the start before\n")
    monkeypatch.setattr(reasons, "STDERR", log)

    async def fail(*_arguments, **_named):
        with log.open("a") as more:
            more.write("(EngineCore pid=2) ERROR 11-21 12:00:00 [core.py:1] ValueError: no memory is left\n")
        raise problem

    monkeypatch.setattr(LLMServer, "__init__", fail)
    model = object.__new__(LanguageModel)
    with pytest.raises(ModelLoadError) as caught:
        await model.__init__(SimpleNamespace(model_id="demo-llm"))
    assert caught.value.message == f"demo-llm can't be loaded: {message}"


async def test_a_dead_engine_is_told_to_the_controller_in_our_own_error(start):
    model = object.__new__(LanguageModel)
    model._name, model.engine = "demo-llm", start(Client())
    await model.check_health()

    async def dead():
        raise EngineDeadError()

    model.engine._engine_client.check_health = dead
    with pytest.raises(UnavailableError, match="the engine of 'demo-llm' died; try again"):
        await model.check_health()


@pytest.mark.parametrize(("steps", "ready"), [((LAST,), True), ((RuntimeError("a mistake"),), False)])
async def test_a_replica_is_ready_when_its_engine_has_answered(start, monkeypatch, steps, ready):
    async def build(model, configuration, engine_cls):
        assert engine_cls is Engine
        model.engine = start(Client(*steps))

    monkeypatch.setattr(LLMServer, "__init__", build)
    model = object.__new__(LanguageModel)
    starting = asyncio.create_task(model.__init__(SimpleNamespace(model_id="demo-llm")))
    await asyncio.wait({starting})
    assert (starting.exception() is None, hasattr(model, "_watching")) == (ready, ready)
    assert model.engine._engine_client.closed == 1
    if ready:
        model._watching.cancel()


async def test_autoscaling_learns_what_the_scheduler_says(start):
    client = Client(LAST)
    engine = start(client)
    (logger,) = client.logger_manager.stat_loggers
    logger.record(SchedulerStats(num_running_reqs=3, num_waiting_reqs=2, kv_cache_usage=0.25), None)
    model = object.__new__(LanguageModel)
    model.engine = engine
    assert await model.record_autoscaling_stats() == {"pending": 2.0, "running": 3.0, "kv_cache_use": 0.25}

"""A language model's replica over a stand-in for vLLM's engine client; everything above the client is real."""

import asyncio
from types import SimpleNamespace

import pytest
from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from vllm import RequestOutput
from vllm.outputs import CompletionOutput

from serve_app.llm import replica
from serve_app.llm.engine import Engine, GenerationStatistics, SchedulerLoad
from serve_app.llm.replica import LanguageModel
from serve_app.telemetry.warmup import WarmUp

TIMES = SimpleNamespace(queued_ts=1.0, scheduled_ts=1.5, first_token_ts=2.5, last_token_ts=4.5)


class Client:
    """Yields outputs, raises errors and waits for events, as its steps say; counts how often it was closed."""

    def __init__(self, *steps):
        self.steps, self.requests, self.closed, self.stopped, self.errored = steps, [], 0, 0, False
        self.model_config = SimpleNamespace(max_model_len=128)
        self.logger_manager = SimpleNamespace(stat_loggers=[])

    async def generate(self, prompt, parameters, request_id, lora_request=None, trace_headers=None, priority=0):
        self.requests.append((prompt, parameters, request_id, lora_request))
        try:
            for step in self.steps:
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield step
        finally:
            self.closed += 1

    async def check_health(self):
        pass

    def shutdown(self):
        self.stopped += 1


@pytest.fixture
def output():
    def build(text="", index=0, finished=False, metrics=TIMES):
        sequence = CompletionOutput(index, text, [1], None, None, finish_reason="stop" if finished else None)
        return RequestOutput("id", "ask", [1, 2], None, [sequence], finished, metrics)

    return build


@pytest.fixture
def start_engine(monkeypatch):
    def start(*steps, adapters=(), generates=True):
        client = Client(*steps)
        monkeypatch.setattr(VLLMEngine, "_start_async_llm_engine", lambda *_: client)
        engine = object.__new__(Engine)
        engine.statistics, engine.load, engine._token_receiver = GenerationStatistics(), SchedulerLoad(), None
        engine._engine_client = engine._start_async_llm_engine(None, None, None)
        engine._oai_models = SimpleNamespace(lora_requests={name: f"lora {name}" for name in adapters})
        engine._oai_serving_completion = object() if generates else None
        return engine, client

    return start


@pytest.fixture
def start_replica(start_engine, monkeypatch):
    """A replica `r1` of the model `demo-llm`, as its constructor leaves it, with the engine's client."""
    context = SimpleNamespace(replica_id=SimpleNamespace(unique_id="r1"))
    monkeypatch.setattr(replica.serve, "get_replica_context", lambda: context)

    def start(*steps, **options):
        model = object.__new__(LanguageModel)
        model._name = "demo-llm"
        model.engine, client = start_engine(*steps, **options)
        model._warmup = WarmUp({"demo-llm": model._probe})
        return model, client

    return start


@pytest.fixture
def counts():
    """Successes, failures and running generations."""

    def read(statistics):
        stages = statistics.row("demo-llm")["inference_stats"]
        return stages["success"]["count"], stages["fail"]["count"], statistics.running

    return read

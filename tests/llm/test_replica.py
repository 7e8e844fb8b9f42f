"""A language model's replica with a faked engine: vLLM's client is made up, all that stands over it is real."""

import asyncio
import time
from types import SimpleNamespace

import pytest
from vllm import RequestOutput
from vllm.exceptions import QueueOverflowError, VLLMNotFoundError, VLLMValidationError
from vllm.outputs import CompletionOutput
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from serve_app.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    ModelError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
)
from serve_app.llm.contracts import pack_texts
from serve_app.llm.engine import Engine
from serve_app.llm.replica import LanguageModel
from serve_app.llm.statistics import Statistics
from serve_app.telemetry.warmup import WarmUp
from serve_app.types.tensors import InferRequest, Tensor

TIMES = SimpleNamespace(queued_ts=1.0, scheduled_ts=1.5, first_token_ts=2.5, last_token_ts=4.5)


def output(text="", index=0, finished=False, metrics=TIMES):
    sequence = CompletionOutput(index, text, [1], None, None, finish_reason="stop" if finished else None)
    return RequestOutput("id", "ask", [1, 2], None, [sequence], finished, metrics)


class Client:
    """Gives outputs, raises errors, waits for events; knows who asked, and how often it was closed."""

    def __init__(self, *steps):
        self.steps, self.asked, self.closed, self.errored = steps, [], 0, False
        self.model_config = SimpleNamespace(max_model_len=128)

    async def generate(self, prompt, parameters, request_id, lora_request=None, trace_headers=None):
        self.asked.append((prompt, parameters, request_id, lora_request))
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


def over(client, adapters=(), generates=True):
    engine = object.__new__(Engine)
    engine.statistics, engine._engine_client = Statistics(), client
    client.generate = engine._counted(client.generate)
    engine._oai_models = SimpleNamespace(lora_requests={name: f"lora {name}" for name in adapters})
    engine._oai_serving_completion = object() if generates else None
    model = object.__new__(LanguageModel)
    model._name, model.engine, model._warming = "demo-llm", engine, WarmUp({"demo-llm": model._probe})
    return model


def serving(*steps, **more):
    client = Client(*steps)
    return over(client, **more), client


def asked(prompt="ask", version=-1, deadline=None, stream=False, tensors=(), **parameters):
    given = [pack_texts("text_input", [prompt]), Tensor("stream", "BOOL", (1,), bytes([stream])), *tensors]
    return InferRequest("demo-llm", version, "mine", tuple(given), parameters=parameters, deadline=deadline)


def text(answer):
    return [element.decode() for element in answer.outputs[0].elements()]


async def collect(answers, into):
    async for found in answers:
        into.append(found)


async def both_ways(model, request):
    """How a request fails that neither way of asking can answer."""
    problems = []
    for call in (model.infer(request), anext(model.stream(request))):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            await call
        problems.append((type(caught.value), str(caught.value)))
    assert problems[0] == problems[1]
    return problems[0]


def counts(model):
    stages = model.engine.statistics.row("demo-llm")["inference_stats"]
    return stages["success"]["count"], stages["fail"]["count"], model.engine.statistics.running


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


async def test_an_inference_is_the_one_answer():
    model, client = serving(output(" one", finished=True))
    answer = await model.infer(asked(max_tokens=5))
    assert (text(answer), answer.final, answer.id, answer.model) == (["ask one"], True, "mine", "demo-llm")
    prompt, parameters, *_ = client.asked[0]
    assert (prompt, parameters.max_tokens) == ("ask", 5)
    await settle()
    assert (client.closed, counts(model)) == (1, (1, 0, 0))


async def test_a_stream_gives_every_answer_until_the_last():
    model, client = serving(output(" a"), output(" b"), output("", finished=True), output("never"))
    found = []
    await collect(model.stream(asked(stream=True)), found)
    assert [(text(it), it.final) for it in found] == [([" a"], False), ([" b"], False), ([""], True)]
    assert (client.closed, counts(model)) == (1, (1, 0, 0))


async def test_several_sequences_have_their_places():
    model, _ = serving(output("b", index=1), output("c", index=1), output("a", finished=True))
    found = []
    await collect(model.stream(asked(stream=True, n=2)), found)
    assert [text(it) for it in found] == [["", "b"], ["", "c"], ["a", ""]]


async def test_two_requests_of_one_id_are_two_to_the_engine():
    model, client = serving(output(finished=True))
    await asyncio.gather(model.infer(asked()), model.infer(asked()))
    (*_, first, _), (*_, second, _) = client.asked
    assert first != second
    assert [name[:5] for name in (first, second)] == ["mine-"] * 2


async def test_an_adapter_is_found_by_its_name():
    model, client = serving(output(finished=True), adapters=["legal", "poems"])
    await model.infer(asked(lora_name="legal"))
    assert client.asked[0][-1] == "lora legal"
    missing = await both_ways(model, asked(lora_name="x"))
    assert missing == (NotFoundError, "no adapter 'x'; there is: legal, poems")
    model, client = serving()
    assert (await both_ways(model, asked(lora_name="x")))[1] == "no adapter 'x'; there is: none"
    assert client.asked == []


@pytest.mark.parametrize("version", [0, 2, -2])
async def test_there_is_version_1_only(version):
    model, client = serving(output(finished=True))
    missing = NotFoundError, f"model 'demo-llm' has version 1 only, not {version}"
    assert await both_ways(model, asked(version=version)) == missing
    for call in (model.metadata, model.config):
        with pytest.raises(NotFoundError, match="has version 1 only"):
            await call("demo-llm", version)
    with pytest.raises(InvalidRequestError, match=f"requested model version {version} of 'demo-llm' is not available"):
        await model.statistics("demo-llm", version)
    assert not await model.ready("demo-llm", version)
    assert client.asked == []


@pytest.mark.parametrize("version", [-1, 1])
async def test_version_1_is_there_by_its_number_and_without(version):
    model, _ = serving(output(finished=True))
    await model.infer(asked(version=version))
    assert await model.ready("demo-llm", version)
    assert (await model.metadata("demo-llm", version))["name"] == "demo-llm"
    assert (await model.config("demo-llm", version))["backend"] == "vllm"
    assert [row["name"] for row in await model.statistics("demo-llm", version)] == ["demo-llm"]


async def test_a_model_that_only_embeds_makes_no_text():
    model, client = serving(generates=False)
    refused = UnsupportedError, "model 'demo-llm' makes no text; it is served under /v1/embeddings"
    assert await both_ways(model, asked()) == refused
    for call in (model.metadata, model.config):
        with pytest.raises(UnsupportedError, match="makes no text"):
            await call("demo-llm", 1)
    await model._warming.run()
    assert await model.ready("demo-llm", 1)
    assert (await model.warming())["demo-llm"]["state"] == "ready"
    assert client.asked == []


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (InferRequest("demo-llm"), "a request has one input PROMPT or text_input, got none"),
        (asked(""), "text_input is empty"),
        (asked(tempature=1), "unknown sampling parameter 'tempature'; did you mean 'temperature'?"),
        (asked(n=0), "sampling parameters: n must be at least 1, got 0"),
        (asked(n=10**6), "sampling parameters: n must be at most"),
        (asked(tensors=[pack_texts("sampling_parameters", ["["])]), "sampling_parameters is no JSON: '['"),
        (
            InferRequest("demo-llm", inputs=(Tensor("PROMPT", "BYTES", (1,), b"\x02\0\0\0\xc3\x28"),)),
            "input 'PROMPT' is not UTF-8, byte 0 on",
        ),
    ],
)
async def test_a_request_that_can_not_be_meant_never_reaches_the_engine(request_, message):
    model, client = serving(output(finished=True))
    kind, told = await both_ways(model, request_)
    assert (kind, client.asked) == (InvalidRequestError, [])
    assert told.startswith(message)


async def test_a_stream_is_refused_where_one_answer_is_asked_for():
    model, client = serving(output(finished=True))
    with pytest.raises(UnsupportedError, match="by ModelStreamInfer or generate_stream only"):
        await model.infer(asked(stream=True))
    assert client.asked == []


async def test_work_that_comes_too_late_is_not_begun():
    model, client = serving(output(finished=True))
    late = DeadlineExceededError, "the deadline passed before model 'demo-llm' was reached"
    assert await both_ways(model, asked(deadline=time.time() - 1)) == late
    assert client.asked == []


async def test_a_deadline_that_passes_at_work_ends_the_work():
    model, client = serving(output("a"), asyncio.Event())
    found = []
    with pytest.raises(DeadlineExceededError, match="the deadline passed while model 'demo-llm' was at work"):
        await collect(model.stream(asked(stream=True, deadline=time.time() + 0.05)), found)
    assert ([text(it) for it in found], client.closed, counts(model)) == ([["a"]], 1, (0, 1, 0))
    model, client = serving(asyncio.Event())
    with pytest.raises(DeadlineExceededError, match="was at work"):
        await model.infer(asked(deadline=time.time() + 0.05))
    assert (client.closed, counts(model)) == (1, (0, 1, 0))


async def test_a_deadline_that_passes_while_the_reader_is_busy_ends_the_work():
    model, client = serving(output("a"), output("b"), asyncio.Event())
    answers = model.stream(asked(stream=True, deadline=time.time() + 0.05))
    assert text(await anext(answers)) == ["a"]
    await asyncio.sleep(0.1)
    with pytest.raises(DeadlineExceededError):
        await anext(answers)
    assert (client.closed, counts(model)) == (1, (0, 1, 0))


@pytest.mark.parametrize("deadline", [None, 2e10])
async def test_a_caller_that_is_cancelled_ends_the_work(deadline):
    model, client = serving(asyncio.Event())
    call = asyncio.create_task(model.infer(asked(deadline=deadline)))
    await settle()
    assert counts(model) == (0, 0, 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (client.closed, counts(model)) == (1, (0, 1, 0))


async def test_a_reader_that_leaves_ends_the_work_at_once():
    model, client = serving(output("a"), asyncio.Event())
    answers = model.stream(asked(stream=True))
    await anext(answers)
    assert counts(model) == (0, 0, 1)
    await answers.aclose()
    assert (client.closed, counts(model)) == (1, (0, 1, 0))


@pytest.mark.parametrize("before", [[], [output("a")]])
@pytest.mark.parametrize(
    ("problem", "kind", "message"),
    [
        (EngineDeadError(), UnavailableError, "the engine of 'demo-llm' died; try again"),
        (VLLMValidationError("too long", parameter="prompt"), InvalidRequestError, "too long (parameter=prompt)"),
        (VLLMNotFoundError("no such thing"), InvalidRequestError, "no such thing"),
        (ValueError("can't be"), InvalidRequestError, "can't be"),
        (TimeoutError("internals"), ModelError, "model 'demo-llm' failed: TimeoutError; the log says more"),
        (EngineGenerateError("internals"), ModelError, "model 'demo-llm' failed: EngineGenerateError; the log"),
        (QueueOverflowError(), UnavailableError, "'demo-llm' is busy"),
    ],
)  # fmt: skip
async def test_what_the_engine_raises_is_said_in_our_terms(problem, kind, message, before):
    model, client = serving(*before, problem)
    found = []
    with pytest.raises(kind) as caught:
        await collect(model.stream(asked(stream=True, deadline=time.time() + 60)), found)
    assert type(caught.value) is kind
    assert str(caught.value).startswith(message)
    assert (len(found), client.closed, counts(model)) == (len(before), 1, (0, 1, 0))


@pytest.mark.parametrize("steps", [(), (output("a"),)])
async def test_an_engine_that_ends_without_a_last_output_has_failed(steps):
    model, client = serving(*steps)
    with pytest.raises(ModelError, match="model 'demo-llm'"):
        await collect(model.stream(asked(stream=True)), [])
    assert client.closed == 1

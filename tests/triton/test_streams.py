"""How requests end, in real Triton: streams, callers that leave, deadlines and errors; and descriptions of models."""

import asyncio
import time

import numpy as np
import pytest

from serve_app.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    ModelError,
    NotFoundError,
    ServeAppError,
    UnavailableError,
)
from serve_app.triton.embedded import AsyncResponseIterator
from serve_app.triton.protocol import Protocol
from serve_app.types.tensors import InferRequest, RequestedOutput, Tensor, pack_elements

SERVED = ("decoupled", "failing", "identity", "slow")
# Longer than a test may take: a test that waits for its end fails.
FOR_MINUTES = (10_000, 0.05)


@pytest.fixture(scope="module")
def protocol(embedded_models, run_models):
    return Protocol(run_models(embedded_models, *SERVED))


def tensor(name, values):
    array = np.array(values, np.float32)
    return Tensor(name, "FP32", array.shape, array.tobytes())


def ask_numbers(count, pause_s=0.0, **more):
    return InferRequest("decoupled", inputs=(tensor("COUNT", [count, pause_s]),), **more)


def ask_slow(seconds, **more):
    return InferRequest("slow", inputs=(tensor("SECONDS", [[seconds]]),), **more)


def ask_identity(**more):
    return InferRequest(**{"model": "identity", "inputs": (tensor("IN0", [1, 2]),)} | more)


def ask_failing(how):
    return InferRequest("failing", inputs=(Tensor("HOW", "BYTES", (1,), pack_elements([how])),))


def numbers(answers):
    return [answer.outputs[0].array().item() for answer in answers if not answer.empty]


async def collect(responses):
    return [answer async for answer in responses]


async def order(protocol, **more):
    """A running number: how many requests the slow model has worked on."""
    return (await protocol.infer(ask_slow(0, **more))).outputs[0].array().item()


async def test_a_decoupled_model_gives_each_answer_and_an_empty_final_one(protocol):
    for count in (0, 1, 3):
        answers = await collect(protocol.stream(ask_numbers(count, id="s1")))
        assert numbers(answers) == list(range(count))
        assert [answer.final for answer in answers] == [False] * count + [True]
        assert [answer.empty for answer in answers] == [False] * count + [True]
        assert {(answer.model, answer.id) for answer in answers} == {("decoupled", "s1")}


async def test_requested_outputs_of_a_stream_are_in_every_answer_but_the_empty_one(protocol):
    answers = await collect(protocol.stream(ask_numbers(2, outputs=(RequestedOutput("NUMBER", 1),))))
    assert [output.elements() for answer in answers for output in answer.outputs] == [[b"0.000000:0"], [b"1.000000:0"]]
    assert answers[-1].empty


async def test_a_model_that_is_not_decoupled_streams_its_one_answer_as_the_final_one(protocol):
    (answer,) = await collect(protocol.stream(ask_identity(id="s2")))
    assert (answer.outputs[0].array().tolist(), answer.final, answer.id) == ([1, 2], True, "s2")


async def test_answers_come_while_the_model_is_still_at_work(protocol):
    stream = protocol.stream(ask_numbers(*FOR_MINUTES))
    assert numbers([await anext(stream), await anext(stream)]) == [0, 1]
    await stream.aclose()


@pytest.mark.parametrize("how", ["closes", "forgets", "is cancelled", "raises"])
async def test_a_consumer_that_stops_listening_ends_the_model(protocol, how):
    async def listen():
        async for _ in protocol.stream(ask_numbers(*FOR_MINUTES)):
            heard.set()
            if how == "forgets":
                return
            if how == "raises":
                raise ZeroDivisionError

    heard = asyncio.Event()
    if how == "closes":
        stream = protocol.stream(ask_numbers(*FOR_MINUTES))
        await anext(stream)
        await stream.aclose()
    else:
        task = asyncio.create_task(listen())
        await heard.wait()
        if how == "is cancelled":
            task.cancel()
        await asyncio.wait([task])
    # The model works on one request at a time: it answers when it has given the other up.
    assert numbers(await collect(protocol.stream(ask_numbers(2)))) == [0, 1]


async def test_only_a_request_that_is_left_early_is_cancelled(protocol, monkeypatch):
    cancelled = []
    cancel = AsyncResponseIterator.cancel
    monkeypatch.setattr(AsyncResponseIterator, "cancel", lambda self: (cancelled.append(self), cancel(self)))
    await protocol.infer(ask_identity())
    await collect(protocol.stream(ask_identity()))
    await collect(protocol.stream(ask_numbers(2)))
    assert cancelled == []
    stream = protocol.stream(ask_numbers(2))
    await anext(stream)
    await stream.aclose()
    assert len(cancelled) == 1


async def test_a_caller_that_leaves_takes_its_request_out_of_the_queue(protocol):
    before = await order(protocol)
    first, second = (asyncio.create_task(protocol.infer(ask_slow(seconds))) for seconds in (0.5, 0))
    await asyncio.sleep(0.2)
    leaving = asyncio.create_task(protocol.infer(ask_slow(0)))
    await asyncio.sleep(0.1)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await asyncio.gather(first, second)
    assert await order(protocol) == before + 3


async def test_a_request_after_its_deadline_never_reaches_the_model(protocol):
    before = await order(protocol)
    for late_s in (0, 0.001, 1e6):
        with pytest.raises(DeadlineExceededError) as caught:
            await order(protocol, deadline=time.time() - late_s)
        assert caught.value.message == "the deadline passed before the request reached model 'slow'"
    assert await order(protocol) == before + 1


async def test_a_deadline_that_passes_while_the_model_works_is_an_error(protocol):
    with pytest.raises(DeadlineExceededError) as caught:
        await protocol.infer(ask_slow(0.4, deadline=time.time() + 0.1))
    assert caught.value.message == "the deadline passed while model 'slow' worked on the request"
    assert await order(protocol, deadline=time.time() + 60)


async def test_a_request_whose_deadline_passes_in_the_queue_never_reaches_the_model(protocol):
    before = await order(protocol)
    first, second = (asyncio.create_task(protocol.infer(ask_slow(seconds))) for seconds in (0.6, 0))
    await asyncio.sleep(0.2)
    with pytest.raises((DeadlineExceededError, UnavailableError), match=r"deadline passed|timeout expired"):
        await order(protocol, deadline=time.time() + 0.1)
    await asyncio.gather(first, second)
    assert await order(protocol) == before + 3


async def test_a_deadline_that_passes_ends_a_stream_and_its_model(protocol):
    answers = []

    async def listen():
        async for answer in protocol.stream(ask_numbers(*FOR_MINUTES, deadline=time.time() + 0.5)):
            answers.append(answer)

    with pytest.raises(DeadlineExceededError, match="passed while model 'decoupled' worked on"):
        await listen()
    assert numbers(answers) == list(range(len(answers)))
    assert answers
    assert numbers(await collect(protocol.stream(ask_numbers(2)))) == [0, 1]


async def test_a_consumer_that_is_busy_when_the_deadline_passes_gets_an_error_and_is_not_cancelled(protocol):
    interrupted = []

    async def listen():
        async for _ in protocol.stream(ask_numbers(*FOR_MINUTES, deadline=time.time() + 0.3)):
            try:
                await asyncio.sleep(0.8)
            except asyncio.CancelledError:
                interrupted.append("the consumer's own work")
                raise

    with pytest.raises(DeadlineExceededError, match="the deadline passed before the request reached model 'decoupled'"):
        await asyncio.create_task(listen())
    assert interrupted == []


async def test_a_models_exception_has_no_stack_and_its_own_error_keeps_kind_and_message(protocol):
    raised = "Failed to process the request(s) for model 'failing_0', message: ValueError: the model raised"
    for how, kind, message in ((b"raise", ModelError, raised), (b"thanks", UnavailableError, "no: thanks")):
        with pytest.raises(ServeAppError) as caught:
            await protocol.infer(ask_failing(how))
        assert (type(caught.value), caught.value.message) == (kind, message)


async def test_a_wrong_input_is_refused_with_tritons_message(protocol):
    for inputs, message in (
        ((), "expected 1 inputs but got 0 inputs for model 'identity'"),
        ((tensor("NOPE", [1]),), "unexpected inference input 'NOPE' for model 'identity'"),
        ((tensor("IN0", [[1]]),), "unexpected shape for input 'IN0' for model 'identity'. Expected [-1], got [1,1]"),
        ((Tensor("IN0", "FP32", (3,), bytes(8)),), "input byte size mismatch for input 'IN0' for model 'identity'"),
        ((Tensor("IN0", "INT32", (1,), bytes(4)),), "data-type is 'INT32', but model 'identity' expects 'FP32'"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            await protocol.infer(ask_identity(inputs=inputs))
        assert message in caught.value.message


async def test_an_unknown_model_or_version_is_not_found(protocol):
    for name, version, message in (
        ("nope", -1, "Request for unknown model: 'nope' is not found"),
        ("identity", 9, "Request for unknown model: 'identity' version 9 is not found"),
        ("echo", -1, "Request for unknown model: 'echo' is not found"),  # in the repository, and not loaded
    ):
        for call in (protocol.infer, lambda request: collect(protocol.stream(request))):
            with pytest.raises(NotFoundError) as caught:
                await call(ask_identity(model=name, version=version))
            assert caught.value.message == message
        for describe in (protocol.metadata, protocol.config):
            with pytest.raises(NotFoundError) as caught:
                describe(name, version)
            assert caught.value.message == message
        assert protocol.ready(name, version) is False
    assert protocol.ready("identity\0") is False


def test_a_loaded_model_is_ready_and_described(protocol):
    for version in (-1, 1):
        assert protocol.ready("identity", version) is True
        metadata = protocol.metadata("identity", version)
        assert (metadata["name"], metadata["versions"], metadata["platform"]) == ("identity", ["1"], "python")
        assert metadata["inputs"] == [{"name": "IN0", "datatype": "FP32", "shape": [-1]}]
        assert metadata["outputs"] == [{"name": "OUT0", "datatype": "FP32", "shape": [-1]}]
        config = protocol.config("identity", version)
        assert (config["name"], config["backend"], config["max_batch_size"]) == ("identity", "python", 0)


async def test_statistics_count_the_requests_of_one_model(protocol):
    (before,) = protocol.statistics("identity")
    await protocol.infer(ask_identity())
    row = before
    while row["inference_count"] == before["inference_count"]:
        await asyncio.sleep(0.01)  # Triton counts a request a moment after it has answered it
        (row,) = protocol.statistics("identity", 1)
    assert (row["name"], row["version"]) == ("identity", "1")
    assert row["inference_count"] == before["inference_count"] + 1


def test_statistics_are_of_all_models_or_of_one_that_is_loaded(protocol):
    assert [(row["name"], row["version"]) for row in protocol.statistics()] == [(name, "1") for name in SERVED]
    for name, version, message in (
        ("nope", -1, "requested model 'nope' is not available"),
        ("identity", 9, "requested model version is not available for model 'identity'"),
    ):
        with pytest.raises(ServeAppError) as caught:
            protocol.statistics(name, version)
        assert (type(caught.value), caught.value.message) == (InvalidRequestError, message)

"""Many requests over one stream: answers as they come, an error for its request alone, and clients that leave."""

import asyncio
import gc
from contextlib import nullcontext

import pytest
from tritonclient.grpc import service_pb2 as pb

from serve_app.errors import DeadlineExceededError, ModelError
from serve_app.router.kserve import streams
from serve_app.router.kserve.messages import EMPTY_FINAL
from serve_app.router.kserve.streams import FINAL, MAX_AT_ONCE
from serve_app.router.offload import Offload
from serve_app.telemetry.metrics import RequestMetrics
from serve_app.types.tensors import InferAnswer, Tensor


def answer_stream(plane, requests, deadline):
    return streams.answer_stream(plane, requests, deadline, RequestMetrics(), Offload(), lambda _model: nullcontext())


def message(identifier, model="echo", sequence=0, finals=False, value=1):
    made = pb.ModelInferRequest(model_name=model, id=identifier, raw_input_contents=[bytes([value])])
    made.inputs.add(name="x", datatype="UINT8", shape=[1])
    if sequence:
        made.parameters["sequence_id"].int64_param = sequence
    if finals:
        made.parameters[EMPTY_FINAL].bool_param = True
    return made


def answer(asked, value=0, final=True, empty=False):
    outputs = () if empty else (Tensor("y", "UINT8", (1,), bytes([value])),)
    return InferAnswer(asked.model, "1", asked.id, outputs, final=final)


async def sent(*messages):
    for made in messages:
        yield made


async def answers_of(plane, *messages, deadline=1e12):
    return [found async for found in answer_stream(plane, sent(*messages), deadline)]


def rows(answers):
    return [
        (found.infer_response.id, found.error_message, found.infer_response.parameters[FINAL].bool_param)
        for found in answers
    ]


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the code under test has no event for it
            await asyncio.sleep(0)


class Scripted:
    """A data plane whose answers a test scripts."""

    def __init__(self, script):
        self.stream = script


async def test_every_request_is_answered_under_its_id(plane):
    assert await answers_of(plane) == []
    answers = await answers_of(plane, *(message(str(index), value=index) for index in range(50)))
    assert sorted(rows(answers)) == sorted((str(index), "", True) for index in range(50))
    for found in answers:
        assert list(found.infer_response.raw_output_contents) == [bytes([int(found.infer_response.id)])]


async def test_answers_of_several_requests_come_as_they_are_made():
    gates = {"a": asyncio.Event(), "b": asyncio.Event()}

    async def script(asked):
        yield answer(asked, 1, final=False)
        await gates[asked.id].wait()
        yield answer(asked, 2)

    stream = answer_stream(Scripted(script), sent(message("a"), message("b")), 1e12)
    first = [await anext(stream), await anext(stream)]
    assert sorted(rows(first)) == [("a", "", False), ("b", "", False)]
    gates["b"].set()
    assert rows([await anext(stream)]) == [("b", "", True)]
    gates["a"].set()
    assert rows([found async for found in stream]) == [("a", "", True)]


async def test_an_answer_does_not_wait_for_more_requests(plane):
    more = asyncio.Event()

    async def requests():
        yield message("a")
        await more.wait()
        yield message("b")

    stream = answer_stream(plane, requests(), 1e12)
    assert rows([await anext(stream)]) == [("a", "", True)]
    more.set()
    assert rows([found async for found in stream]) == [("b", "", True)]


async def test_an_error_answers_its_own_request_after_its_answers_and_no_other():
    for problem, text in (
        (ModelError("the model's own words"), "the model's own words"),
        (DeadlineExceededError("late"), "late"),
        (KeyError("secret"), "internal error; see the service's log"),
    ):

        async def script(asked, problem=problem):
            yield answer(asked, final=asked.id != "bad")
            if asked.id == "bad":
                raise problem

        answers = await answers_of(Scripted(script), message("a"), message("bad"), message("b"))
        expected = [("a", "", True), ("b", "", True), ("bad", "", False), ("bad", text, True)]
        assert sorted(rows(answers)) == expected
        (failed,) = [found for found in answers if found.error_message]
        assert failed.infer_response.model_name == "echo"


async def test_a_wrong_request_fails_alone_and_reaches_no_model(plane):
    wrong, region = message("wrong"), message("region")
    wrong.inputs[0].datatype = "FP8"
    region.inputs[0].parameters["shared_memory_region"].string_param = "r"
    answers = await answers_of(plane, message("a"), wrong, message("b", model="none"), region, message("c"))
    assert sorted(rows(answers)) == [
        ("a", "", True),
        ("b", "Request for unknown model: 'none' is not found; available: echo", True),
        ("c", "", True),
        ("region", "input 'x' is in shared memory, which is not supported: send its data", True),
        ("wrong", "invalid datatype for input x", True),
    ]
    assert [asked.id for asked in plane.asked] == ["a", "c"]


async def test_requests_of_a_sequence_wait_for_each_other_and_others_do_not():
    begun, gates = [], {name: asyncio.Event() for name in ("s1", "s2", "s3", "t1", "free")}

    async def script(asked):
        begun.append(asked.id)
        await gates[asked.id].wait()
        if asked.id == "s2":
            raise ModelError("broken")
        yield answer(asked)

    stream = answer_stream(
        Scripted(script),
        sent(message("s1", sequence=5), message("s2", sequence=5), message("t1", sequence=6), message("free"),
             message("s3", sequence=5)),
        1e12,
    )  # fmt: skip
    gates["free"].set()
    assert rows([await anext(stream)]) == [("free", "", True)]
    assert begun == ["s1", "t1", "free"]
    gates["s1"].set()
    assert rows([await anext(stream)]) == [("s1", "", True)]
    await until(lambda: "s2" in begun)
    assert "s3" not in begun
    gates["s2"].set()
    assert rows([await anext(stream)]) == [("s2", "broken", True)]  # a failure doesn't hold up the rest
    await until(lambda: "s3" in begun)
    gates["s3"].set()
    gates["t1"].set()
    assert sorted(rows([found async for found in stream])) == [("s3", "", True), ("t1", "", True)]


async def test_the_empty_final_answer_is_sent_only_if_requested():
    async def script(asked):
        yield answer(asked, final=False)
        yield answer(asked, empty=True)

    answers = await answers_of(Scripted(script), message("plain"))
    assert rows(answers) == [("plain", "", False)]
    answers = await answers_of(Scripted(script), message("asks", finals=True))
    assert rows(answers) == [("asks", "", False), ("asks", "", True)]
    assert len(answers[1].infer_response.outputs) == 0


@pytest.mark.parametrize("more_to_come", [False, True])
async def test_a_client_that_leaves_cancels_its_requests(plane, more_to_come):
    async def requests():
        for index in range(6):
            yield message(str(index), sequence=index % 2)
        if more_to_come:
            await asyncio.Event().wait()

    before = asyncio.all_tasks()
    plane.gate.clear()
    stream = answer_stream(plane, requests(), 1e12)
    waiting = asyncio.create_task(anext(stream))
    await until(lambda: len(plane.begun) == 4)  # of the sequence's three requests the first
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: asyncio.all_tasks() == before)
    assert (sorted(plane.cancelled), plane.ended) == (sorted(plane.begun), [])


async def test_a_consumer_that_stops_reading_stops_the_models():
    made = []

    async def script(asked):
        for index in range(3 * MAX_AT_ONCE):
            made.append(index)
            yield answer(asked, final=False)

    stream = answer_stream(Scripted(script), sent(message("a")), 1e12)
    await anext(stream)
    for _ in range(4 * MAX_AT_ONCE):
        await asyncio.sleep(0)
    assert len(made) <= MAX_AT_ONCE + 3
    assert len([found async for found in stream]) == 3 * MAX_AT_ONCE - 1


async def test_the_requests_at_work_at_once_are_limited(plane):
    plane.gate.clear()
    read = []

    async def requests():
        for index in range(MAX_AT_ONCE + 50):
            read.append(index)
            yield message(str(index))

    stream = answer_stream(plane, requests(), 1e12)
    first = asyncio.create_task(anext(stream))
    await until(lambda: len(plane.begun) == MAX_AT_ONCE)
    for _ in range(100):
        await asyncio.sleep(0)
    assert (len(plane.begun), len(read)) == (MAX_AT_ONCE, MAX_AT_ONCE + 1)
    plane.gate.set()
    assert len([await first] + [found async for found in stream]) == MAX_AT_ONCE + 50


async def test_a_connection_that_breaks_ends_the_stream_with_its_error(plane):
    async def requests():
        yield message("a")
        raise ConnectionResetError("the client has gone")

    with pytest.raises(ConnectionResetError):
        async for _ in answer_stream(plane, requests(), 1e12):
            pass


async def test_a_client_that_leaves_with_a_full_queue_leaves_no_task_behind():
    async def script(asked):
        for _ in range(2 * MAX_AT_ONCE):
            yield answer(asked, final=False)

    async def requests():
        yield message("a")
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    stream = answer_stream(Scripted(script), requests(), 1e12)
    await anext(stream)
    for _ in range(2 * MAX_AT_ONCE):
        await asyncio.sleep(0)
    await stream.aclose()
    for _ in range(100):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before


async def test_finished_sequences_are_not_kept(plane):
    async def requests():
        for index in range(1, 301):
            yield message(str(index), sequence=index)
        await asyncio.Event().wait()

    stream = answer_stream(plane, requests(), 1e12)
    for _ in range(300):
        await anext(stream)
    for _ in range(10):  # a task is cleaned up after its last answer
        await asyncio.sleep(0)
    gc.collect()
    kept = sum(1 for found in gc.get_objects() if isinstance(found, asyncio.Task) and found.done())
    await stream.aclose()
    assert kept < 100


async def test_each_request_of_a_stream_is_counted_in_the_metrics(recorded):
    async def script(asked):
        if asked.id == "b":
            raise ModelError("no")
        yield answer(asked)

    await answers_of(Scripted(script), message("a"), message("b"), message("c"))
    calls = [(tags["protocol"], tags["status"]) for name, tags, _ in recorded if name == "serve_app_requests"]
    assert sorted(calls) == [("kserve-grpc", "200"), ("kserve-grpc", "200"), ("kserve-grpc", "500")]
    assert len([name for name, _, _ in recorded if name == "serve_app_received_bytes"]) == 3

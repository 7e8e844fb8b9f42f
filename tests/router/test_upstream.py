"""Calls to one deployment: what is tried again, what isn't, and how it ends in time."""

import asyncio
import time

import grpc
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve.exceptions import BackPressureError

from serve_app.errors import DeadlineExceededError, ModelError, NotFoundError, PayloadTooLargeError, UnavailableError
from serve_app.router.upstream import Upstream


def grpc_error(code):
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="internals 10.0.0.1:443")


def raised_in_a_replica(problem):
    return RayTaskError("infer", "Traceback with internals", problem).as_instanceof_cause()


DEATHS = [
    ActorDiedError(), ActorUnavailableError("gone", b"x" * 16), grpc_error(grpc.StatusCode.UNAVAILABLE),
    grpc_error(grpc.StatusCode.UNKNOWN), grpc_error(grpc.StatusCode.INTERNAL),
]  # fmt: skip
ANSWERS = [
    NotFoundError("no model"), UnavailableError("queue full"), ModelError("failed"), DeadlineExceededError("late"),
    raised_in_a_replica(NotFoundError("no model")), raised_in_a_replica(UnavailableError("queue full")),
    BackPressureError(num_queued_requests=1, max_queued_requests=1),
    grpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED), grpc_error(grpc.StatusCode.DEADLINE_EXCEEDED),
    grpc_error(grpc.StatusCode.CANCELLED),
]  # fmt: skip
GONE_MESSAGES = (
    "the deployment is busy or not ready; try again later",
    "the connection to the replica was lost; try again",
)


def name_of(problem):
    return f"{type(problem).__name__}-{problem.code().name}" if isinstance(problem, grpc.aio.AioRpcError) else None


class Stream:
    """What a streaming call gives: values to yield, errors to raise, events to wait for."""

    def __init__(self, parts):
        self._parts, self.cancelled = list(parts), 0

    def cancel(self):
        self.cancelled += 1

    def __aiter__(self):
        return self

    async def __anext__(self):
        if not self._parts:
            raise StopAsyncIteration
        part = self._parts.pop(0)
        if isinstance(part, asyncio.Event):
            await part.wait()
            return await anext(self)
        if isinstance(part, BaseException):
            raise part
        return part


class Handle:
    """Gives out the outcomes of calls one after the other: values, errors, events, or lists for streams."""

    def __init__(self, *outcomes):
        self._outcomes, self._options = list(outcomes), {}
        self.calls, self.streams = [], []

    def options(self, **options):
        view = Handle.__new__(Handle)
        view.__dict__ = self.__dict__ | {"_options": self._options | options}
        return view

    def __getattr__(self, method):
        if method.startswith("_"):
            raise AttributeError(method)
        return type("Method", (), {"remote": lambda _self, *arguments: self._begin(method, arguments)})()

    def _begin(self, method, arguments):
        self.calls.append((self._options.get("method_name", method), arguments, self._options.get("session_id")))
        outcome = self._outcomes.pop(0)
        if self._options.get("stream"):
            self.streams.append(Stream(outcome))
            return self.streams[-1]
        return self._finish(outcome)

    async def _finish(self, outcome):
        return await anext(Stream([outcome]))


def upstream(*outcomes, crashed=()):
    """An upstream over these outcomes; `crashed` are the actors that crashed of their own."""

    async def has_crashed(actor_id):
        return actor_id in crashed

    handle = Handle(*outcomes)
    return Upstream("vision", handle, crashed=has_crashed), handle


async def collect(answers, into):
    async for found in answers:
        into.append(found)


@pytest.mark.parametrize("sequence", ["", "m/7"])
async def test_an_answer_is_the_replicas(sequence):
    vision, handle = upstream("answer")
    assert await vision.call("infer", 1, "two", session=sequence, deadline=time.time() + 60) == "answer"
    assert handle.calls == [("infer", (1, "two"), sequence or None)]


@pytest.mark.parametrize("death", DEATHS, ids=name_of)
async def test_a_replica_that_died_is_replaced_once(death):
    vision, handle = upstream(death, "answer")
    assert await vision.call("infer", 1, session="s") == "answer"
    assert handle.calls == [("infer", (1,), "s")] * 2


@pytest.mark.parametrize("death", DEATHS, ids=name_of)
async def test_there_is_no_third_try(death):
    vision, handle = upstream(death, death, "never")
    with pytest.raises(UnavailableError) as caught:
        await vision.call("infer")
    assert caught.value.message in GONE_MESSAGES
    assert len(handle.calls) == 2


CRASH = ActorUnavailableError("gone", b"x" * 16)


async def test_a_request_that_crashed_a_replica_is_not_tried_on_another():
    vision, handle = upstream(CRASH, [CRASH], "never", crashed=[CRASH.actor_id])
    for call in (vision.call("infer"), anext(vision.stream("stream"))):
        with pytest.raises(UnavailableError, match=GONE_MESSAGES[0]):
            await call
    assert [call[0] for call in handle.calls] == ["infer", "stream"]


async def test_a_call_that_must_not_run_twice_is_not_tried_again():
    vision, handle = upstream(ActorDiedError(), [ActorDiedError()], "never")
    for call in (vision.call("infer", retry=False), anext(vision.stream("stream", retry=False))):
        with pytest.raises(UnavailableError, match=GONE_MESSAGES[0]):
            await call
    assert [call[0] for call in handle.calls] == ["infer", "stream"]


@pytest.mark.parametrize("problem", ANSWERS, ids=name_of)
async def test_an_answer_that_is_an_error_is_no_death(problem):
    vision, handle = upstream(problem, "never")
    with pytest.raises(
        (NotFoundError, UnavailableError, ModelError, DeadlineExceededError, PayloadTooLargeError)
    ) as caught:
        await vision.call("infer")
    assert "internals" not in caught.value.message
    assert len(handle.calls) == 1


async def test_a_call_that_was_cancelled_may_have_been_cancelled_by_us_and_is_not_tried_again():
    vision, handle = upstream(grpc_error(grpc.StatusCode.CANCELLED), [grpc_error(grpc.StatusCode.CANCELLED)], "never")
    for call in (vision.call("infer"), anext(vision.stream("stream"))):
        with pytest.raises(UnavailableError, match=GONE_MESSAGES[1]):
            await call
    assert [call[0] for call in handle.calls] == ["infer", "stream"]


async def test_what_is_not_known_stays_what_it_is():
    vision, handle = upstream(KeyError("secret"), "never")
    with pytest.raises(KeyError):
        await vision.call("infer")
    assert len(handle.calls) == 1


async def test_a_call_after_its_deadline_never_begins():
    vision, handle = upstream("never", ["never"])
    with pytest.raises(DeadlineExceededError, match="the deadline of the request has passed"):
        await vision.call("infer", deadline=time.time() - 1)
    with pytest.raises(DeadlineExceededError, match="the deadline of the request has passed"):
        await anext(vision.stream("stream", deadline=time.time() - 1))
    assert all(call[0] != "infer" for call in handle.calls)


async def test_a_call_that_takes_too_long_ends_at_its_deadline():
    vision, handle = upstream(asyncio.Event())
    with pytest.raises(DeadlineExceededError) as caught:
        await vision.call("infer", deadline=time.time() + 0.05)
    assert caught.value.message == "no answer from vision before the deadline"
    assert len(handle.calls) == 1


async def test_the_second_try_has_no_time_of_its_own():
    vision, _ = upstream(ActorDiedError(), asyncio.Event())
    with pytest.raises(DeadlineExceededError, match="no answer from vision before the deadline"):
        await vision.call("infer", deadline=time.time() + 0.05)


async def test_a_caller_that_goes_away_is_no_deadline():
    vision, handle = upstream(asyncio.Event())
    call = asyncio.create_task(vision.call("infer", deadline=time.time() + 60))
    while not handle.calls:  # noqa: ASYNC110 - what is waited for is in a fake
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


@pytest.mark.parametrize("sequence", ["", "m/7"])
async def test_a_stream_gives_every_answer(sequence):
    vision, handle = upstream([1, 2, 3])
    found = []
    await collect(vision.stream("stream", "x", session=sequence, deadline=time.time() + 60), found)
    assert found == [1, 2, 3]
    assert handle.calls == [("stream", ("x",), sequence or None)]


@pytest.mark.parametrize("death", DEATHS, ids=name_of)
async def test_a_stream_that_dies_before_its_first_answer_begins_again_once(death):
    vision, handle = upstream([death], [1, 2])
    found = []
    await collect(vision.stream("stream"), found)
    assert found == [1, 2]
    vision, handle = upstream([death], [death], ["never"])
    with pytest.raises(UnavailableError):
        await anext(vision.stream("stream"))
    assert len(handle.calls) == 2
    assert all(stream.cancelled for stream in handle.streams)


@pytest.mark.parametrize("death", DEATHS, ids=name_of)
async def test_a_stream_that_has_begun_is_never_begun_again(death):
    vision, handle = upstream([1, death], ["never"])
    found = []
    with pytest.raises(UnavailableError) as caught:
        await collect(vision.stream("stream"), found)
    assert caught.value.message in GONE_MESSAGES
    assert found == [1]
    assert len(handle.calls) == 1


@pytest.mark.parametrize("problem", ANSWERS, ids=name_of)
async def test_an_error_that_a_stream_gives_is_no_death(problem):
    vision, handle = upstream([problem], ["never"])
    with pytest.raises((NotFoundError, UnavailableError, ModelError, DeadlineExceededError, PayloadTooLargeError)):
        await anext(vision.stream("stream"))
    assert len(handle.calls) == 1


async def test_a_stream_that_takes_too_long_ends_at_its_deadline_and_is_cancelled():
    vision, handle = upstream([1, asyncio.Event()])
    found = []
    with pytest.raises(DeadlineExceededError) as caught:
        await collect(vision.stream("stream", deadline=time.time() + 0.05), found)
    assert caught.value.message == "vision had not finished before the deadline"
    assert found == [1]
    assert handle.streams[0].cancelled


async def test_a_stream_that_nobody_reads_any_more_is_cancelled():
    vision, handle = upstream([1, 2, asyncio.Event()])
    answers = vision.stream("stream")
    assert await anext(answers) == 1
    await answers.aclose()
    assert handle.streams[0].cancelled


async def test_a_deadline_that_passes_while_the_reader_is_busy_is_a_deadline():
    vision, _ = upstream([1, asyncio.Event()])

    async def read():
        async for _answer in vision.stream("stream", deadline=time.time() + 0.05):
            await asyncio.sleep(0.2)  # a client that takes its time to read

    with pytest.raises(DeadlineExceededError):
        await asyncio.create_task(read())


async def test_a_timeout_inside_a_replica_is_no_deadline_of_the_request():
    vision, _ = upstream(raised_in_a_replica(TimeoutError("a lock in the model")))
    with pytest.raises(Exception) as caught:  # noqa: PT011
        await vision.call("infer", deadline=time.time() + 60)
    assert not isinstance(caught.value, DeadlineExceededError)

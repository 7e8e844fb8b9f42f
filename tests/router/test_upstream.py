"""Calls to one deployment: what is tried again, what isn't, deadlines, and calls to all replicas."""

import asyncio
import time

import grpc
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError
from ray.serve.exceptions import BackPressureError

from serve_app.errors import (
    DeadlineExceededError,
    ModelError,
    NotFoundError,
    PayloadTooLargeError,
    QueueFullError,
    ReplicaKilledError,
    ReplicaLostError,
    ServeAppError,
    UnavailableError,
)
from serve_app.router import upstream as upstreams

PASSED = "the deadline of the request has passed"
BUSY = "the deployment is busy or not ready; try again later"
LOST = "the connection to the replica was lost; try again"
TOO_LARGE = "the request or its answer is larger than the limit for messages between replicas"


def grpc_error(code):
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="internals 10.0.0.1:443")


def raised(problem):
    return RayTaskError("infer", "Traceback with internals", problem).as_instanceof_cause()


CRASH = ActorUnavailableError("gone", b"x" * 16)
CANCELLED = grpc_error(grpc.StatusCode.CANCELLED)
DEATHS = [(ActorDiedError(), BUSY), (CRASH, BUSY)]
DEATHS += [(grpc_error(code), LOST) for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN)]
DEATHS += [(grpc_error(grpc.StatusCode.INTERNAL), LOST)]
DEATHS += [(ReplicaKilledError("killed"), "killed"), (raised(ReplicaKilledError("killed")), "killed")]
ERRORS = [
    (NotFoundError("no model"), NotFoundError, "no model"),
    (UnavailableError("queue full"), UnavailableError, "queue full"),
    (ModelError("failed"), ModelError, "failed"),
    (DeadlineExceededError("late"), DeadlineExceededError, "late"),
    (raised(NotFoundError("no model")), NotFoundError, "no model"),
    (raised(UnavailableError("queue full")), UnavailableError, "queue full"),
    (BackPressureError(num_queued_requests=1, max_queued_requests=1), QueueFullError,
     "the deployment's queue is full; try again later"),
    (grpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED), PayloadTooLargeError, TOO_LARGE),
    (grpc_error(grpc.StatusCode.DEADLINE_EXCEEDED), UnavailableError, LOST),
    (CANCELLED, UnavailableError, LOST),  # the router itself may have cancelled it
]  # fmt: skip


@pytest.fixture
def upstream(deploy):
    """The deployment `vision`, whose calls have these outcomes."""
    return lambda *outcomes, **options: deploy("vision", script=outcomes, **options)


async def collect(answers):
    """The answers, and the error that ended them."""
    found = []
    try:
        async for answer in answers:
            found.append(answer)
    except ServeAppError as problem:
        return found, problem
    return found, None


async def refusal_of(call):
    with pytest.raises(ServeAppError) as caught:
        await call
    return type(caught.value), caught.value.message


async def test_a_call_and_a_stream_give_the_replicas_answers_and_a_sequence_names_its_session(upstream):
    for session in ("", "m/7"):
        vision, handle = upstream("answer", [1, 2, 3])
        options = {"session": session, "deadline": time.time() + 60}
        assert await vision.call("infer", 1, "two", **options) == "answer"
        assert await collect(vision.stream("stream", "x", **options)) == ([1, 2, 3], None)
        assert [call[:2] for call in handle.calls] == [("infer", (1, "two")), ("stream", ("x",))]
        assert [options.get("session_id") for _, _, options in handle.calls] == [session or None] * 2


async def test_a_replica_that_died_is_replaced_once(upstream):
    for death, message in DEATHS:
        vision, handle = upstream(death, "answer")
        assert await vision.call("infer", 1, session="s") == "answer"
        assert [(*call[:2], call[2]["session_id"]) for call in handle.calls] == [("infer", (1,), "s")] * 2
        vision, handle = upstream(death, death, "never")
        assert (await refusal_of(vision.call("infer")))[1] == message
        assert len(handle.calls) == 2
        vision, handle = upstream([death], [1, 2])
        assert await collect(vision.stream("stream")) == ([1, 2], None)
        vision, handle = upstream([death], [death], ["never"])
        assert (await refusal_of(anext(vision.stream("stream"))))[1] == message
        assert [answer.cancelled for answer in handle.answers] == [True, True]


async def test_what_a_broken_replica_has_not_begun_waits_for_another(upstream, monkeypatch):
    monkeypatch.setattr(upstreams, "LOST_PAUSE_S", 0.01)
    broken = ReplicaLostError("will be replaced")
    for lost in (broken, raised(broken), ExceptionGroup("pictures", [broken, broken])):
        vision, handle = upstream(*[lost] * 5, "answer")
        assert await vision.call("infer", 1, deadline=time.time() + 60) == "answer"
        assert len(handle.calls) == 6
        vision, _ = upstream(*[[lost]] * 5, [1, 2])
        assert await collect(vision.stream("stream", deadline=time.time() + 60)) == ([1, 2], None)
        vision, _ = upstream(*[lost] * 100)
        late = vision.call("infer", deadline=time.time() + 0.1)
        assert await refusal_of(late) == (DeadlineExceededError, "no answer from vision before the deadline")
        vision, handle = upstream(lost, "never")
        assert await refusal_of(vision.call("infer", retry=False)) == (ReplicaLostError, "will be replaced")
        vision, handle = upstream(ActorDiedError(), lost, lost, "answer")
        assert await vision.call("infer") == "answer"


async def test_a_stream_that_has_begun_is_never_begun_again(upstream):
    for death, message in DEATHS:
        vision, handle = upstream([1, death], ["never"])
        found, problem = await collect(vision.stream("stream"))
        assert (found, problem.message, len(handle.calls)) == ([1], message, 1)


async def test_a_call_that_crashed_a_replica_or_must_not_run_twice_is_not_tried_again(upstream):
    for problem, crashed, options in ((CRASH, [CRASH.actor_id], {}), (ActorDiedError(), (), {"retry": False})):
        vision, handle = upstream(problem, [problem], "never", crashed=crashed)
        assert await refusal_of(vision.call("infer", **options)) == (UnavailableError, BUSY)
        assert await refusal_of(anext(vision.stream("stream", **options))) == (UnavailableError, BUSY)
        assert [call[0] for call in handle.calls] == ["infer", "stream"]


async def test_an_error_that_a_replica_answers_is_not_tried_again_and_shows_no_internals(upstream):
    for problem, kind, message in ERRORS:
        vision, handle = upstream(problem, [problem], "never")
        assert await refusal_of(vision.call("infer")) == (kind, message)
        assert await refusal_of(anext(vision.stream("stream"))) == (kind, message)
        assert len(handle.calls) == 2
    vision, handle = upstream(KeyError("secret"), raised(TimeoutError("a lock in the model")), "never")
    with pytest.raises(KeyError):
        await vision.call("infer")
    with pytest.raises(TimeoutError):  # no deadline of the request
        await vision.call("infer", deadline=time.time() + 60)
    assert len(handle.calls) == 2


async def test_a_call_after_its_deadline_never_begins(upstream):
    vision, handle = upstream()
    late = time.time() - 1
    assert await refusal_of(vision.call("infer", deadline=late)) == (DeadlineExceededError, PASSED)
    assert await refusal_of(anext(vision.stream("stream", deadline=late))) == (DeadlineExceededError, PASSED)
    assert handle.calls == []


async def test_a_call_ends_at_its_deadline_and_a_second_try_has_no_time_of_its_own(upstream):
    for outcomes in ([asyncio.Event], [ActorDiedError(), asyncio.Event]):
        vision, handle = upstream(*outcomes)
        refusal = await refusal_of(vision.call("infer", deadline=time.time() + 0.05))
        assert refusal == (DeadlineExceededError, "no answer from vision before the deadline")
        assert len(handle.calls) == len(outcomes)


async def test_a_stream_ends_at_its_deadline_even_while_its_reader_is_busy(upstream):
    for busy_s in (0, 0.2):
        vision, handle = upstream([1, asyncio.Event])

        async def read(stream, busy_s=busy_s):
            async for answer in stream:
                yield answer
                await asyncio.sleep(busy_s)

        found, problem = await collect(read(vision.stream("stream", deadline=time.time() + 0.05)))
        assert (found, type(problem)) == ([1], DeadlineExceededError)
        assert problem.message == (PASSED if busy_s else "vision had not finished before the deadline")
        assert handle.answers[0].cancelled


async def test_a_caller_that_leaves_cancels_its_call_or_stream(upstream):
    vision, handle = upstream(asyncio.Event, [1, 2, asyncio.Event])
    call = asyncio.create_task(vision.call("infer", deadline=time.time() + 60))
    while not handle.calls:  # noqa: ASYNC110 - the fake has no event for it
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    answers = vision.stream("stream")
    assert await anext(answers) == 1
    await answers.aclose()
    assert handle.answers[1].cancelled


def fails(problem):
    return {"index": lambda: problem}


async def test_a_broadcast_has_an_answer_or_an_error_of_each_replica(deploy):
    vision, handle = deploy("vision", fails("one"), fails(raised(NotFoundError("no model"))), fails(ActorDiedError()))
    one, error, dead = await vision.everywhere("index", timeout_s=3)
    assert (one, type(error), error.message, type(dead)) == ("one", NotFoundError, "no model", UnavailableError)
    assert (handle.broadcasts, handle.timeout_s) == ([("index", ())], 3)
    assert await vision.answers_everywhere("index", timeout_s=3) == ["one"]
    handle.replicas.pop(0)
    assert await refusal_of(vision.answers_everywhere("index", timeout_s=3)) == (NotFoundError, "no model")
    handle.replicas.clear()
    assert await refusal_of(vision.everywhere("index")) == (UnavailableError, "vision has no running replica")


async def test_a_broadcast_that_fails_as_a_whole_is_an_error(deploy):
    vision, handle = deploy("vision", {})
    for problem, expected, message in (
        (TimeoutError(), DeadlineExceededError, "not every replica of vision answered within 2.5 s"),
        (ActorDiedError(), UnavailableError, BUSY),
        (KeyError("secret"), KeyError, "secret"),
    ):
        handle.problem = problem
        for ask in (vision.everywhere, vision.answers_everywhere):
            with pytest.raises(expected, match=message):
                await ask("index", timeout_s=2.5)

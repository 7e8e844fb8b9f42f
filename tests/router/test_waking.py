"""Calls to a model that may have no replica yet: how long they wait, and how each wait ends.

Replicas are faked: a handle gives out outcomes one after the other, and says of each broadcast what a test wants.
"""

import asyncio
import gc
import time

import pytest
from ray.exceptions import ActorDiedError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RequestCancelledError

from serve_app.errors import DeadlineExceededError, NotFoundError, QueueFullError, UnavailableError
from serve_app.router.router import build_upstream
from serve_app.router.upstream import PRESENCE_TIMEOUT_S, Upstream
from serve_app.settings import LanguageModelSettings

WAKE_S = 0.05
NOBODY = DeploymentUnavailableError(DeploymentID("demo-llm", "serve_app"))
FULL = "the deployment's queue is full; try again later"
UNSTARTED = "the deployment could not be started; see its status in the Ray dashboard"
ASLEEP = f"'demo-llm' was not up within {WAKE_S:g} s; try again later"
WAYS = pytest.mark.parametrize("way", ["call", "stream"])


class Answer:
    """What a call gives, awaited or iterated: a value, an error, or a future that may get either."""

    def __init__(self, outcome):
        self._outcome, self._given, self.cancelled, self.left = outcome, False, False, False

    async def _finish(self):
        try:
            found = await self._outcome if isinstance(self._outcome, asyncio.Future) else self._outcome
        except asyncio.CancelledError:
            self.left = True
            if self.cancelled:  # as Serve's own answers do
                raise RequestCancelledError("7") from None
            raise
        if isinstance(found, BaseException):
            raise found
        return found

    def __await__(self):
        return self._finish().__await__()

    async def __anext__(self):
        if self._given:
            raise StopAsyncIteration
        found = await self._finish()
        self._given = True
        return found

    def go_on(self, outcome):
        self._outcome, self._given = outcome, False

    def cancel(self):
        self.cancelled = True


class Handle:
    def __init__(self, *outcomes, replicas=("a",)):
        self._outcomes, self.answers = list(outcomes), []
        self.replicas, self.broadcasts = replicas, []  # an error in their place is raised

    def options(self, **_options):
        return self

    @property
    def infer(self):
        return self

    def remote(self, *_arguments):
        self.answers.append(Answer(self._outcomes.pop(0)))
        return self.answers[-1]

    def broadcast(self, method, *_arguments):
        self._broadcast = method
        return self

    async def results_async(self, timeout_s, return_exceptions):
        assert return_exceptions
        self.broadcasts.append((self._broadcast, timeout_s))
        if isinstance(self.replicas, Exception):
            raise self.replicas
        return list(self.replicas)


def never():
    return asyncio.get_running_loop().create_future()


def later(delay_s, found):
    future = never()
    asyncio.get_running_loop().call_later(delay_s, future.set_result, found)
    return future


async def never_crashed(_actor_id):
    return False


async def ask(handle, way, wake_timeout_s=WAKE_S, deadline_s=60.0):
    model = Upstream("demo-llm", handle, wake_timeout_s, crashed=never_crashed)
    if way == "call":
        return await model.call("infer", deadline=time.time() + deadline_s)
    (found,) = [answer async for answer in model.stream("infer", deadline=time.time() + deadline_s)]
    return found


def test_a_language_model_is_alone_and_sleeps_where_it_may():
    scaling = {"autoscaling_config": {"min_replicas": 0, "max_replicas": 2}}
    for deployment, sleeps in (({}, False), (scaling, True), ({"autoscaling_config": {"min_replicas": 1}}, False)):
        model = build_upstream("m", Handle(), LanguageModelSettings(name="m", deployment=deployment))
        assert (model.optional, model.scales_to_zero) == (True, sleeps)
    other = build_upstream("vision", Handle(), None)
    assert (other.optional, other.scales_to_zero) == (False, False)


@WAYS
@pytest.mark.parametrize("replicas", [NOBODY, ()])
async def test_a_model_without_a_replica_is_waited_for_as_long_as_it_may_take_to_wake(way, replicas):
    handle, began = Handle(never(), replicas=replicas), time.monotonic()
    with pytest.raises(UnavailableError) as caught:
        await ask(handle, way)
    assert time.monotonic() - began >= WAKE_S
    assert caught.value.message == ASLEEP
    assert caught.value.retry_after_s == 1
    assert handle.broadcasts == [("describe", PRESENCE_TIMEOUT_S)]
    await asyncio.sleep(0)
    assert [answer.left for answer in handle.answers] == [True]


@WAYS
async def test_a_model_that_wakes_in_time_answers(way):
    handle = Handle(later(WAKE_S / 2, "answer"), replicas=NOBODY)
    assert await ask(handle, way, wake_timeout_s=5.0) == "answer"
    assert handle.broadcasts == []


@WAYS
async def test_a_model_that_is_at_work_is_waited_for_beyond_that(way):
    handle = Handle(later(WAKE_S * 3, "answer"))
    assert await ask(handle, way) == "answer"
    assert handle.broadcasts == [("describe", PRESENCE_TIMEOUT_S)]


@WAYS
@pytest.mark.parametrize(("wake_timeout_s", "asked"), [(5.0, 0), (WAKE_S, 1)])
async def test_the_deadline_ends_every_wait(way, wake_timeout_s, asked):
    handle, began = Handle(never()), time.monotonic()
    with pytest.raises(DeadlineExceededError, match="demo-llm"):
        await ask(handle, way, wake_timeout_s, deadline_s=WAKE_S * 2)
    assert time.monotonic() - began < 2
    assert len(handle.broadcasts) == asked
    await asyncio.sleep(0)
    assert handle.answers[0].left


@WAYS
async def test_a_presence_that_takes_too_long_to_ask_ends_at_the_deadline(way):
    handle = Handle(never())

    async def results_async(**_):
        await never()

    handle.results_async = results_async
    with pytest.raises(DeadlineExceededError, match="demo-llm"):
        await ask(handle, way, deadline_s=WAKE_S * 2)


@WAYS
async def test_a_replica_that_is_too_busy_to_be_asked_or_stopped_is_a_replica(way):
    handle = Handle(later(WAKE_S * 3, "answer"), replicas=TimeoutError())
    assert await ask(handle, way) == "answer"


@WAYS
async def test_other_deployments_are_waited_for_without_a_question(way):
    handle = Handle(later(WAKE_S, "answer"), replicas=NOBODY)
    assert await ask(handle, way, wake_timeout_s=None) == "answer"
    assert handle.broadcasts == []


@WAYS
@pytest.mark.parametrize(
    ("problem", "kind", "message"),
    [
        (BackPressureError(num_queued_requests=256, max_queued_requests=256), QueueFullError, FULL),
        (NOBODY, UnavailableError, UNSTARTED),
        (NotFoundError("no adapter"), NotFoundError, "no adapter"),
    ],
)
async def test_an_error_is_told_at_once(way, problem, kind, message):
    handle = Handle(problem, replicas=NOBODY)
    with pytest.raises(kind) as caught:
        await ask(handle, way, wake_timeout_s=60.0)
    assert caught.value.message == message
    assert (len(handle.answers), handle.broadcasts) == (1, [])


@WAYS
async def test_a_model_whose_only_replica_died_is_waited_for_as_if_it_slept(way):
    handle = Handle(ActorDiedError(), later(WAKE_S / 2, "answer"), replicas=NOBODY)
    assert await ask(handle, way, wake_timeout_s=5.0) == "answer"
    handle = Handle(later(WAKE_S * 2, ActorDiedError()), never())

    async def die():
        await asyncio.sleep(WAKE_S * 1.5)
        handle.replicas = NOBODY

    _, caught = await asyncio.gather(die(), ask(handle, way), return_exceptions=True)
    assert (type(caught), caught.message) == (UnavailableError, ASLEEP)
    assert (len(handle.answers), len(handle.broadcasts)) == (2, 2)


async def test_a_pause_within_a_stream_is_no_sleep():
    handle = Handle("first", replicas=NOBODY)
    model = Upstream("demo-llm", handle, WAKE_S).stream("infer", deadline=time.time() + 60)
    assert await anext(model) == "first"
    handle.answers[0].go_on(later(WAKE_S * 3, "second"))
    assert await anext(model) == "second"
    assert handle.broadcasts == []
    await model.aclose()


@WAYS
@pytest.mark.parametrize("wake_timeout_s", [60.0, WAKE_S / 10])
async def test_a_caller_that_goes_away_leaves_nothing_that_waits(way, wake_timeout_s):
    handle = Handle(never())
    asking = asyncio.create_task(ask(handle, way, wake_timeout_s))
    await asyncio.sleep(WAKE_S)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(0)
    assert [answer.left for answer in handle.answers] == [True]
    assert asyncio.all_tasks() == {asyncio.current_task()}


@WAYS
async def test_a_wait_that_ends_early_is_no_error_in_the_log(way):
    logged = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: logged.append(context["message"]))
    for handle in (Handle(never()), Handle(never(), replicas=NOBODY)):
        with pytest.raises((DeadlineExceededError, UnavailableError)):
            await ask(handle, way, deadline_s=WAKE_S * 2)
    await asyncio.sleep(0)
    gc.collect()
    assert logged == []

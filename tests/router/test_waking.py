"""Calls to a language model that may have no replica yet: how long they wait, and how each wait ends."""

import asyncio
import gc
import time

import pytest
from ray.exceptions import ActorDiedError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from serve_app.errors import DeadlineExceededError, NotFoundError, QueueFullError, UnavailableError
from serve_app.router.router import build_upstream
from serve_app.router.upstream import PRESENCE_TIMEOUT_S
from serve_app.settings import LanguageModelSettings

WAKE_S = 0.05
NOBODY = DeploymentUnavailableError(DeploymentID("demo-llm", "serve_app"))
ASLEEP = f"'demo-llm' was not up within {WAKE_S:g} s; try again later"
ASKED = [("describe", ())]
NEVER = asyncio.Event


def later(delay_s, found):
    return lambda: asyncio.sleep(delay_s, found)


@pytest.fixture(params=["call", "stream"])
def ask(request, deploy):
    """Ask the model, whose calls have these outcomes; with `presence` what is raised when replicas are looked for."""

    def prepare(*outcomes, presence=None, replicas=1, wake_timeout_s=WAKE_S, deadline_s=60.0):
        answers = [{"describe": dict}] * replicas
        model, handle = deploy("demo-llm", *answers, script=outcomes, wake_timeout_s=wake_timeout_s)
        handle.problem = presence

        async def answer():
            options = {"deadline": time.time() + deadline_s}
            if request.param == "call":
                return await model.call("infer", **options)
            (found,) = [answer async for answer in model.stream("infer", **options)]
            return found

        return answer(), handle

    return prepare


async def refusal_of(call):
    with pytest.raises((UnavailableError, DeadlineExceededError, NotFoundError)) as caught:
        await call
    await asyncio.sleep(0)
    return type(caught.value), caught.value.message


def test_a_language_model_is_optional_and_scales_to_zero_if_configured(handle):
    scaling = {"autoscaling_config": {"min_replicas": 0, "max_replicas": 2}}
    for deployment, to_zero in (({}, False), (scaling, True), ({"autoscaling_config": {"min_replicas": 1}}, False)):
        model = build_upstream("m", handle(), LanguageModelSettings(name="m", deployment=deployment))
        assert (model.optional, model.scales_to_zero) == (True, to_zero)
    other = build_upstream("vision", handle(), None)
    assert (other.optional, other.scales_to_zero) == (False, False)


async def test_a_model_without_a_replica_is_waited_for_until_the_wake_timeout(ask):
    for options in ({"presence": NOBODY}, {"replicas": 0}):
        call, handle = ask(NEVER, **options)
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=ASLEEP) as caught:
            await call
        assert time.monotonic() - began >= WAKE_S
        assert caught.value.retry_after_s == 1
        assert (handle.broadcasts, handle.timeout_s) == (ASKED, PRESENCE_TIMEOUT_S)
        await asyncio.sleep(0)
        assert [answer.left for answer in handle.answers] == [True]


async def test_a_model_that_wakes_in_time_answers(ask):
    call, handle = ask(later(WAKE_S / 2, "answer"), presence=NOBODY, wake_timeout_s=5.0)
    assert (await call, handle.broadcasts) == ("answer", [])


async def test_a_model_with_a_busy_replica_is_waited_for_beyond_the_wake_timeout(ask):
    for presence in (None, TimeoutError()):  # a replica that is too busy to describe itself is one
        call, handle = ask(later(WAKE_S * 3, "answer"), presence=presence)
        assert (await call, handle.broadcasts) == ("answer", ASKED)


async def test_other_deployments_are_waited_for_without_looking_for_replicas(ask):
    call, handle = ask(later(WAKE_S, "answer"), presence=NOBODY, wake_timeout_s=None)
    assert (await call, handle.broadcasts) == ("answer", [])


async def test_the_deadline_ends_every_wait_without_an_error_in_the_log(ask):
    logged = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: logged.append(context["message"]))
    for options, looked in (({"wake_timeout_s": 5.0}, []), ({}, ASKED), ({"presence": NEVER}, ASKED)):
        call, handle = ask(NEVER, deadline_s=WAKE_S * 2, **options)
        kind, message = await refusal_of(call)
        assert (kind, "demo-llm" in message, handle.broadcasts) == (DeadlineExceededError, True, looked)
        assert handle.answers[0].left
    assert await refusal_of(ask(NEVER, presence=NOBODY)[0]) == (UnavailableError, ASLEEP)
    gc.collect()
    assert logged == []


async def test_an_error_is_answered_at_once(ask):
    for problem, kind, message in (
        (BackPressureError(num_queued_requests=256, max_queued_requests=256), QueueFullError,
         "the deployment's queue is full; try again later"),
        (NOBODY, UnavailableError, "the deployment could not be started; see its status in the Ray dashboard"),
        (NotFoundError("no adapter"), NotFoundError, "no adapter"),
    ):  # fmt: skip
        call, handle = ask(problem, presence=NOBODY, wake_timeout_s=60.0)
        assert await refusal_of(call) == (kind, message)
        assert (len(handle.answers), handle.broadcasts) == (1, [])


async def test_a_model_whose_only_replica_died_is_waited_for_again(ask):
    call, handle = ask(ActorDiedError(), later(WAKE_S / 2, "answer"), presence=NOBODY, wake_timeout_s=5.0)
    assert await call == "answer"

    async def die():
        await asyncio.sleep(WAKE_S)
        handle.problem = NOBODY
        return ActorDiedError()

    call, handle = ask(lambda: die(), NEVER, wake_timeout_s=WAKE_S / 2)
    kind, message = await refusal_of(call)
    assert (kind, message) == (UnavailableError, f"'demo-llm' was not up within {WAKE_S / 2:g} s; try again later")
    assert (len(handle.answers), handle.broadcasts) == (2, ASKED * 2)


async def test_a_pause_within_a_stream_is_not_taken_for_sleep(deploy):
    script = [["first", later(WAKE_S * 3, "second")]]
    model, handle = deploy("demo-llm", script=script, wake_timeout_s=WAKE_S)
    handle.problem = NOBODY
    found = [answer async for answer in model.stream("infer", deadline=time.time() + 60)]
    assert (found, handle.broadcasts) == (["first", "second"], [])


async def test_a_caller_that_leaves_leaves_no_task_behind(ask):
    for wake_timeout_s in (60.0, WAKE_S / 10):
        call, handle = ask(NEVER, wake_timeout_s=wake_timeout_s)
        asking = asyncio.create_task(call)
        await asyncio.sleep(WAKE_S)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.sleep(0)
        assert [answer.left for answer in handle.answers] == [True]
        assert asyncio.all_tasks() == {asyncio.current_task()}

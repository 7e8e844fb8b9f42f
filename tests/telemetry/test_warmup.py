"""Warm-up reports its progress, runs once at a time, and raises to callers that wait for it."""

import asyncio

import pytest

from serve_app.errors import EngineError, ModelLoadError
from serve_app.telemetry.warmup import WarmUp


class Gate:
    """A probe that waits until it is opened, then returns or raises."""

    def __init__(self, problem=None, opened=False):
        self.problem, self.calls = problem, 0
        self.entered, self.opened = asyncio.Event(), asyncio.Event()
        if opened:
            self.opened.set()

    async def __call__(self):
        self.calls += 1
        self.entered.set()
        await self.opened.wait()
        if self.problem:
            raise self.problem


def states(warmup):
    return [row["state"] for row in warmup.progress().values()]


async def finish(*gates):
    for gate in gates:
        gate.opened.set()
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})


async def test_models_are_warmed_one_after_another():
    first, second = Gate(), Gate()
    warmup = WarmUp({"one": first, "two": second})
    assert states(warmup) == ["pending", "pending"]
    run = asyncio.create_task(warmup.run())
    await first.entered.wait()
    assert states(warmup) == ["warming", "pending"]
    first.opened.set()
    await second.entered.wait()
    assert states(warmup) == ["ready", "warming"]
    second.opened.set()
    await run
    assert states(warmup) == ["ready", "ready"]
    assert all(row["seconds"] >= 0 for row in warmup.progress().values())


async def test_the_first_failure_ends_the_run_and_shows_only_messages_meant_for_users():
    for problem, message in (
        (EngineError("the engine is gone"), "the engine is gone"),
        (ModelLoadError("no such output"), "no such output"),
        (ZeroDivisionError("internals"), "see the replica's log"),
    ):
        last = Gate(opened=True)
        warmup = WarmUp({"one": Gate(opened=True), "two": Gate(problem, opened=True), "three": last})
        with pytest.raises(type(problem)) as caught:
            await warmup.run()
        assert caught.value is problem
        assert states(warmup) == ["ready", "failed", "pending"]
        assert (warmup.progress()["two"], last.calls) == ({"state": "failed", "error": message}, 0)


async def test_a_background_run_starts_once_whoever_started_the_first():
    gate = Gate()
    warmup = WarmUp({"one": gate})
    warmup.start()
    warmup.start()
    assert states(warmup) == ["pending"]
    await gate.entered.wait()
    warmup.start()
    assert states(warmup) == ["warming"]
    await finish(gate)
    assert (gate.calls, states(warmup)) == (1, ["ready"])
    gate = Gate()
    warmup = WarmUp({"one": gate})
    run = asyncio.create_task(warmup.run())
    await gate.entered.wait()
    warmup.start()
    await finish(gate)
    await run
    assert gate.calls == 1


async def test_a_background_run_can_be_repeated_after_success_and_after_failure():
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context["message"]))
    first, second = Gate(opened=True), Gate(EngineError("the engine is gone"), opened=True)
    warmup = WarmUp({"one": first, "two": second})
    warmup.start()
    await finish()
    assert warmup.progress()["two"] == {"state": "failed", "error": "the engine is gone"}
    second.problem = None
    for calls in (2, 3):
        warmup.start()
        assert states(warmup) == ["pending", "pending"]
        await finish()
        assert (first.calls, second.calls, states(warmup)) == (calls, calls, ["ready", "ready"])
    assert complaints == []


async def test_a_run_without_models_does_nothing():
    warmup = WarmUp({})
    await warmup.run()
    assert warmup.progress() == {}

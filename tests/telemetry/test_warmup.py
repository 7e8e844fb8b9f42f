"""Warm-up tells how far it is, runs once at a time, and raises where somebody waits for it."""

import asyncio

import pytest

from serve_app.errors import EngineError, ModelLoadError
from serve_app.telemetry.warmup import WarmUp


class Gate:
    """A probe that waits until it is let through, then answers or raises what it was given."""

    def __init__(self, outcome=None):
        self.outcome = outcome
        self.asked = 0
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()

    async def __call__(self):
        self.asked += 1
        self.entered.set()
        await self.opened.wait()
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def states(warming):
    return {model: row["state"] for model, row in warming.progress().items()}


async def finish(*gates):
    """Let the probes through, and wait for all that goes on in the background."""
    for gate in gates:
        gate.opened.set()
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})


async def test_models_are_pending_then_warming_then_ready_one_after_the_other():
    first, second = Gate(), Gate()
    warming = WarmUp({"one": first, "two": second})
    assert states(warming) == {"one": "pending", "two": "pending"}
    run = asyncio.create_task(warming.run())
    await first.entered.wait()
    assert states(warming) == {"one": "warming", "two": "pending"}
    first.opened.set()
    await second.entered.wait()
    assert states(warming) == {"one": "ready", "two": "warming"}
    second.opened.set()
    await run
    assert states(warming) == {"one": "ready", "two": "ready"}
    assert all(row["seconds"] >= 0 for row in warming.progress().values())


@pytest.mark.parametrize(
    ("outcome", "kind", "message"),
    [
        (EngineError("the engine is gone"), EngineError, "the engine is gone"),
        (ModelLoadError("two can't answer: no such output"), ModelLoadError, "two can't answer: no such output"),
    ],
)
async def test_a_model_that_can_not_answer_fails_the_run_and_those_behind_it_stay_pending(outcome, kind, message):
    gates = {"one": Gate(), "two": Gate(outcome), "three": Gate()}
    for gate in gates.values():
        gate.opened.set()
    warming = WarmUp(gates)
    with pytest.raises(kind) as caught:
        await warming.run()
    assert (type(caught.value), caught.value.message) == (kind, message)
    assert states(warming) == {"one": "ready", "two": "failed", "three": "pending"}
    assert warming.progress()["two"] == {"state": "failed", "error": message}
    assert gates["three"].asked == 0


async def test_what_is_no_error_of_ours_is_not_hidden():
    gate = Gate(ZeroDivisionError("a mistake"))
    gate.opened.set()
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        await WarmUp({"one": gate}).run()


async def test_a_start_in_the_background_returns_at_once_and_is_pending():
    gate = Gate()
    warming = WarmUp({"one": gate})
    warming.start()
    assert states(warming) == {"one": "pending"}
    await gate.entered.wait()
    assert states(warming) == {"one": "warming"}
    await finish(gate)
    assert states(warming) == {"one": "ready"}


async def test_a_start_while_one_is_under_way_does_not_begin_a_second():
    gate = Gate()
    warming = WarmUp({"one": gate})
    warming.start()
    warming.start()
    await gate.entered.wait()
    warming.start()
    assert states(warming) == {"one": "warming"}
    await finish(gate)
    assert gate.asked == 1


async def test_a_start_after_one_has_ended_asks_every_model_again():
    first, second = Gate(), Gate()
    warming = WarmUp({"one": first, "two": second})
    warming.start()
    await finish(first, second)
    first.opened.clear()
    first.entered.clear()
    warming.start()
    assert states(warming) == {"one": "pending", "two": "pending"}
    await first.entered.wait()
    await finish(first)
    assert (first.asked, second.asked) == (2, 2)
    assert states(warming) == {"one": "ready", "two": "ready"}


async def test_a_start_that_fails_is_told_by_the_progress_alone_and_can_be_repeated():
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context["message"]))
    gate = Gate(EngineError("the engine is gone"))
    warming = WarmUp({"one": gate})
    warming.start()
    await finish(gate)
    assert warming.progress() == {"one": {"state": "failed", "error": "the engine is gone"}}
    gate.outcome = None
    warming.start()
    await finish(gate)
    assert states(warming) == {"one": "ready"}
    assert complaints == []


async def test_a_start_while_the_first_run_is_under_way_does_not_begin_a_second():
    gate = Gate()
    warming = WarmUp({"one": gate})
    run = asyncio.create_task(warming.run())
    await gate.entered.wait()
    warming.start()
    await asyncio.sleep(0)
    await finish(gate)
    await run
    assert gate.asked == 1


async def test_a_model_whose_probe_raises_something_unexpected_has_failed_too():
    gate = Gate(ZeroDivisionError("a mistake"))
    gate.opened.set()
    warming = WarmUp({"one": gate})
    with pytest.raises(ZeroDivisionError):
        await warming.run()
    assert states(warming) == {"one": "failed"}


async def test_without_models_there_is_nothing_to_warm():
    warming = WarmUp({})
    await warming.run()
    assert warming.progress() == {}

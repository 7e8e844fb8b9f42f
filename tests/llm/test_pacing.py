"""Outputs that wait for more: nothing is lost, and neither the first, the last nor an error waits."""

import asyncio

import pytest
from vllm import RequestOutput
from vllm.outputs import CompletionOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import async_llm
from vllm.v1.engine.output_processor import RequestOutputCollector

from serve_app.llm.pacing import EVENTS_PER_S, FEW, PacedOutputs, pace_streams

LONG_S = 10.0
SOON_S = 5.0  # much less than the interval


def output(text, *, finished=False):
    sequence = CompletionOutput(0, text, [ord(text[-1])], None, None, finish_reason="stop" if finished else None)
    return RequestOutput("id", "ask", [1], None, [sequence], finished)


def paced(interval_s=LONG_S, kind=RequestOutputKind.DELTA):
    return PacedOutputs(kind, "id", lambda: interval_s)


async def soon(outputs):
    """As vLLM's own loop asks for an output."""
    found = outputs.get_nowait() or await asyncio.wait_for(outputs.get(), SOON_S)
    (sequence,) = found.outputs
    return sequence.text, list(sequence.token_ids), found.finished


async def test_the_first_goes_at_once_and_what_follows_goes_together_with_the_last():
    outputs = paced()
    waiting = asyncio.ensure_future(soon(outputs))
    await asyncio.sleep(0)
    outputs.put(output("a"))
    assert await waiting == ("a", [97], False)
    following = asyncio.ensure_future(soon(outputs))
    for text in "bc":
        outputs.put(output(text))
    await asyncio.sleep(0.05)
    assert not following.done(), "it waits for more, within the interval"
    outputs.put(output("d", finished=True))  # nothing more can come
    assert await following == ("bcd", [98, 99, 100], True)


async def test_an_interval_that_has_passed_gives_what_came_or_the_next_that_comes():
    outputs = paced(0.02)
    outputs.put(output("a"))
    assert await soon(outputs) == ("a", [97], False)
    for texts, expected in (("bc", ("bc", [98, 99], False)), ("", ("d", [100], False))):
        for text in texts:
            outputs.put(output(text))
        waiting = asyncio.ensure_future(soon(outputs))
        await asyncio.sleep(0.05)
        if not texts:
            assert not waiting.done()
            outputs.put(output("d"))
        assert await waiting == expected


async def test_an_error_ends_the_waiting():
    for before in ("", "b"):
        outputs = paced()
        outputs.put(output("a"))
        await soon(outputs)
        if before:
            outputs.put(output(before))
        waiting = asyncio.ensure_future(soon(outputs))
        await asyncio.sleep(0)
        outputs.put(ValueError("broken"))
        with pytest.raises(ValueError, match="broken"):
            await waiting


async def test_a_cancelled_reader_leaves_what_waits():
    outputs = paced()
    outputs.put(output("a"))
    await soon(outputs)
    outputs.put(output("b"))
    reading = asyncio.ensure_future(outputs.get())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    outputs.put(output("c", finished=True))
    assert await soon(outputs) == ("bc", [98, 99], True)


async def test_vllm_makes_these_for_its_requests_and_their_interval_grows_with_those_that_run(monkeypatch):
    monkeypatch.setattr(async_llm, "RequestOutputCollector", RequestOutputCollector)
    running = FEW + 2
    pace_streams(50.0, lambda: running)
    outputs = async_llm.RequestOutputCollector(RequestOutputKind.DELTA, "id")
    assert isinstance(outputs, PacedOutputs)
    assert outputs._interval_s() == 2 / EVENTS_PER_S
    running = FEW
    assert outputs._interval_s() == 0
    running = 1000
    assert outputs._interval_s() == 0.05

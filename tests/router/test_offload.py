"""Work on large bodies in real processes: results, errors, and how it is ended."""

import asyncio
import os
import signal
import time

import numpy as np
import psutil
import pytest

from serve_app.errors import DeadlineExceededError, InvalidRequestError, PayloadTooLargeError, UnavailableError
from serve_app.router.kserve.documents import read_request
from serve_app.router.offload import INLINE_BYTES, Offload
from serve_app.router.parsing import parse_object

LARGE = INLINE_BYTES + 1


def children():
    return {child.pid for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE}


@pytest.fixture
def before():
    return children()


@pytest.fixture
async def offload(before):
    made = Offload()
    yield made
    await made.close()
    assert children() <= before


async def test_small_work_stays_and_large_work_goes_to_a_process_that_is_kept(offload, before):
    assert await offload.run(os.getpid, size=INLINE_BYTES) == os.getpid()
    first = await offload.run(os.getpid, size=LARGE)
    assert {first} == children() - before
    assert await offload.run(os.getpid, size=LARGE) == first


async def test_a_request_comes_back_as_tensors_with_views_of_its_binary_part(offload):
    values = np.arange(100_000, dtype=np.float32)
    entry = {"name": "A", "datatype": "FP32", "shape": [100_000], "data": values.tolist()}
    binary = {"name": "B", "datatype": "UINT8", "shape": [3], "parameters": {"binary_data_size": 3}}
    body = memoryview(str({"inputs": [entry, binary]}).replace("'", '"').encode() + b"xyz")
    head, tail = body[:-3], body[-3:]
    asked, as_binary = await offload.run(read_request, "m", -1, head, tail, None, size=len(head))
    assert np.array_equal(asked.inputs[0].array(), values)
    assert bytes(asked.inputs[1].data) == b"xyz"
    assert as_binary == {"": False}


async def test_what_the_function_raises_is_raised_here(offload):
    with pytest.raises(InvalidRequestError, match="it is not an object"):
        await offload.run(parse_object, b"[" + b" " * LARGE + b"]", size=LARGE)
    with pytest.raises(PayloadTooLargeError):
        await offload.run(parse_object, b"[" * (64 << 20), size=64 << 20)
    assert await offload.run(len, b"good", size=LARGE) == 4


async def test_the_loop_goes_on_while_a_large_body_is_read(offload):
    text = b'{"a": [' + b"0.25," * 3_000_000 + b"1]}"
    ticks = []

    async def tick():
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    with pytest.raises(PayloadTooLargeError):
        await offload.run(parse_object, text, size=len(text))
    before = len(ticks)
    await offload.run(time.sleep, 0.1, size=LARGE)
    ticking.cancel()
    assert len(ticks) > before > 10


async def test_work_past_the_deadline_is_ended_with_its_process_and_others_go_on(offload, before):
    with pytest.raises(DeadlineExceededError, match="could not be read before its deadline"):
        await offload.run(time.sleep, 60, size=LARGE, deadline=time.time() + 1)
    assert await offload.run(len, b"next", size=LARGE) == 4
    assert len(children() - before) == 1


async def test_a_caller_that_leaves_ends_the_work(offload, before):
    working = asyncio.create_task(offload.run(time.sleep, 60, size=LARGE))
    await asyncio.sleep(0.2)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    assert await offload.run(len, b"next", size=LARGE) == 4
    assert len(children() - before) == 1


async def test_a_process_that_is_killed_fails_its_task_alone(offload, before):
    working = asyncio.create_task(offload.run(time.sleep, 60, size=LARGE))
    while not (started := children() - before):  # noqa: ASYNC110 - the start of a process has no event
        await asyncio.sleep(0.01)
    for pid in started:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(UnavailableError, match="has ended; try again"):
        await working
    idle = await offload.run(os.getpid, size=LARGE)
    os.kill(idle, signal.SIGKILL)
    while offload._idle[0].returncode is None:  # noqa: ASYNC110 - until the loop has seen it end
        await asyncio.sleep(0.01)
    assert await offload.run(os.getpid, size=LARGE) != idle


async def test_more_than_there_are_processes_wait_their_turn(offload, before):
    assert await asyncio.gather(*(offload.run(abs, -n, size=LARGE) for n in range(20))) == list(range(20))
    assert len(children() - before) == 2


async def test_a_process_that_has_grown_is_replaced(offload):
    first = await offload.run(os.getpid, size=LARGE)
    await offload.run(exec, "import builtins; builtins.kept = b'x' * (300 << 20)", size=LARGE)
    assert await offload.run(os.getpid, size=LARGE) != first

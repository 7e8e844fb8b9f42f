"""Requests from an event loop, which is never blocked and may close early."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest

import serve_app.triton.embedded as triton
from tests.triton.embedded.soak import wait_until_all_have_ended

Get = Callable[[str], triton.Model]
ONES = {"IN0": np.ones(4, np.float32)}


async def test_many_requests_at_once_get_each_its_own_answer(model: Get) -> None:
    async def ask(number: int) -> bool:
        sent = np.full(100, number, np.float32)
        (response,) = [r async for r in model("identity").async_infer(inputs={"IN0": sent})]
        return bool(np.array_equal(np.from_dlpack(response.outputs["OUT0"]), sent))

    assert all(await asyncio.gather(*(ask(number) for number in range(500))))


async def test_the_loop_runs_on_while_a_model_works(model: Get) -> None:
    model("slow")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticker = asyncio.create_task(tick())
    async for _ in model("slow").async_infer(inputs={"SECONDS": np.array([[0.5]], np.float32)}):
        pass
    ticker.cancel()
    assert ticks > 10


async def test_decoupled_responses_come_one_by_one(model: Get) -> None:
    inputs = {"COUNT": np.array([3, 0.01], np.float32)}
    numbers = [
        np.asarray(r.outputs["NUMBER"]).item() async for r in model("decoupled").async_infer(inputs=inputs) if r.outputs
    ]
    assert numbers == [0, 1, 2]


async def test_an_asynchronous_request_can_be_cancelled(model: Get) -> None:
    responses = model("decoupled").async_infer(inputs={"COUNT": np.array([10000, 0.01], np.float32)})
    await anext(responses)
    responses.cancel()
    with pytest.raises(triton.CancelledError):
        async for _ in responses:
            pass


async def test_a_queue_of_the_user_gets_every_response_even_if_it_is_full(model: Get) -> None:
    target: asyncio.Queue[triton.InferenceResponse] = asyncio.Queue(maxsize=1)
    inputs = {"COUNT": np.array([4, 0], np.float32)}
    responses = model("decoupled").async_infer(inputs=inputs, response_queue=target)
    seen = [r async for r in responses]
    assert [await asyncio.wait_for(target.get(), 5) for _ in seen] == seen


async def test_the_wrong_kind_of_queue_is_refused(model: Get) -> None:
    import queue

    with pytest.raises(triton.InvalidArgumentError, match=r"asyncio\.Queue must be used"):
        model("identity").async_infer(inputs=ONES, response_queue=queue.SimpleQueue())
    with pytest.raises(triton.InvalidArgumentError, match=r"queue\.SimpleQueue must be used"):
        model("identity").infer(inputs=ONES, response_queue=asyncio.Queue())


async def test_an_error_of_the_model_is_raised_in_the_loop(model: Get) -> None:
    with pytest.raises(triton.UnavailableError, match="no: async"):
        async for _ in model("failing").async_infer(inputs={"HOW": ["async"]}):
            pass


def test_without_a_loop_asynchronous_requests_are_refused(model: Get) -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        model("identity").async_infer(inputs=ONES)


def test_a_loop_that_is_closed_meanwhile_does_no_harm(model: Get) -> None:
    async def send_and_leave() -> None:
        model("decoupled").async_infer(inputs={"COUNT": np.array([20, 0.01], np.float32)})
        model("identity").async_infer(inputs=ONES)

    asyncio.run(send_and_leave())
    wait_until_all_have_ended()


async def test_a_consumer_that_is_cancelled_does_no_harm(model: Get) -> None:
    async def consume() -> None:
        async for _ in model("decoupled").async_infer(inputs={"COUNT": np.array([20, 0.01], np.float32)}):
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [r.final async for r in model("identity").async_infer(inputs=ONES)] == [True]

"""Text of streams sent together: nothing is lost, nothing changes its order, and the first never waits."""

import asyncio
from contextlib import aclosing

import pytest

from serve_app.llm.coalescing import Coalescing, joined

LONG_MS = 10_000.0
SOON_S = 5.0  # much less than the interval


async def script(*steps, closed=None):
    """Events are waited for, errors raised, all else is a piece."""
    try:
        for step in steps:
            if isinstance(step, BaseException):
                raise step
            if isinstance(step, asyncio.Event):
                await step.wait()
            else:
                yield step
    finally:
        if closed:
            closed.set()


def many(coalescing):
    """As if there were so many streams that each waits for the longest interval."""
    coalescing._running = 10_000
    return coalescing


async def test_what_has_come_goes_at_once_and_what_follows_goes_together():
    first, rest, end = asyncio.Event(), asyncio.Event(), asyncio.Event()
    pieces = script((200, "role "), (200, "one "), first, (200, "two "), (200, "three "), rest, 7, end)
    answer = many(Coalescing(LONG_MS)).join(pieces)
    assert await asyncio.wait_for(anext(answer), SOON_S) == (200, "role one ")
    following = asyncio.ensure_future(anext(answer))
    first.set()
    await asyncio.sleep(0.05)
    assert not following.done(), "it waits for more, within the interval"
    rest.set()
    end.set()  # nothing more can come
    assert await asyncio.wait_for(following, SOON_S) == (200, "two three ")
    assert [piece async for piece in answer] == [7]


async def test_without_an_interval_each_piece_goes_when_it_comes():
    steps = [asyncio.Event() for _ in range(3)]
    answer = many(Coalescing(0)).join(script(*[part for step in steps for part in (step, (200, "x"))]))
    for step in steps:
        step.set()
        assert await asyncio.wait_for(anext(answer), SOON_S) == (200, "x")
    assert [piece async for piece in answer] == []


async def test_an_error_comes_after_what_came_before_it():
    answer = many(Coalescing(LONG_MS)).join(script((200, "a"), (200, "b"), ValueError("broken")))
    assert await anext(answer) == (200, "ab")
    with pytest.raises(ValueError, match="broken"):
        await anext(answer)


async def test_a_caller_that_leaves_closes_the_source():
    coalescing, closed = Coalescing(), asyncio.Event()
    async with aclosing(coalescing.join(script((200, "a"), asyncio.Event(), closed=closed))) as answer:
        assert await anext(answer) == (200, "a")
    assert closed.is_set()
    assert coalescing._running == 0


async def test_a_cancelled_caller_closes_the_source():
    closed = asyncio.Event()

    async def read():
        async for _ in Coalescing().join(script((200, "a"), asyncio.Event(), closed=closed)):
            pass

    reading = asyncio.ensure_future(read())
    await asyncio.sleep(0.05)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert closed.is_set()


def test_texts_of_one_status_become_one_and_numbers_their_sum():
    pieces = [(200, "a"), (200, "b"), 3, 3, (500, "c"), (200, "d")]
    assert list(joined(pieces)) == [(200, "ab"), 6, (500, "c"), (200, "d")]

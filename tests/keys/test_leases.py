"""Limits over several routers, with a counter that is there, lost or new, on a clock of the test's own."""

import asyncio
import random
from collections import Counter

import pytest

from serve_app.errors import TooManyRequestsError, UnavailableError
from serve_app.keys.counter import PRESENT_S, KeyCounter
from serve_app.keys.file import Key
from serve_app.keys.leases import LOST_S, Leases
from serve_app.keys.window import Window


class World:
    """Time, a counter that can be lost, and routers."""

    def __init__(self):
        self.now, self.calls, self.lost = 1000.0, Counter(), False
        self.begin_counter()

    def begin_counter(self):
        self.counter = KeyCounter(lambda: self.now)

    async def call(self, method, *arguments):
        self.calls[method] += 1
        await asyncio.sleep(0)
        if self.lost:
            raise UnavailableError("gone")
        return getattr(self.counter, method)(*arguments)

    def router(self, name="a", when_lost="allow"):
        return Leases(self.call, name, when_lost, lambda: self.now)


@pytest.fixture
def world():
    return World()


def key(**limits):
    return Key(name="team", sha256="0" * 64, **limits)


async def admitted(router, limited, attempts=1):
    count = 0
    for _ in range(attempts):
        try:
            async with router.request(limited):
                count += 1
        except TooManyRequestsError:
            pass
    return count


def test_a_window_counts_a_second_until_a_minute_after_its_end():
    window = Window()
    window.add(10.9, 3)
    window.add(11.0, 2)
    assert (window.total(70.99), window.total(71.0), window.total(72.0)) == (5, 2, 0)
    window.add(100, 5)
    window.add(110, 5)
    assert window.room_in_s(120, 10, 1) == 41
    assert window.room_in_s(120, 10, 6) == 51
    assert window.room_in_s(120, 11, 1) == 0
    assert window.room_in_s(120, 10, 1000) == 51
    assert window.empty_in_s(120) == 51
    assert Window().room_in_s(0, 1, 1) == 0


async def test_without_limits_the_counter_is_never_asked(world):
    router = world.router()
    assert await admitted(router, key(), 1000) == 1000
    await router.take_tokens(key(), 10**9)
    assert not world.calls
    assert router.standing(key()) == {}


async def test_the_limit_holds_over_routers_in_every_minute_to_five_percent_with_few_calls(world):
    limited, routers = key(requests_per_minute=600), [world.router(name) for name in "abcd"]
    chance, times = random.Random(7), []
    while world.now < 1000 + 240:
        times += [world.now] * await admitted(chance.choice(routers), limited)
        world.now += chance.expovariate(40)
    most = max(sum(1 for at in times if start <= at < start + 60) for start in range(1000, 1180))
    assert 570 <= most <= 630
    assert sum(1 for at in times if 1060 <= at < 1240) >= 0.95 * 1800
    assert world.calls["exchange"] < 2 * 4 * 240  # two a second from each router


async def test_a_refusal_says_when_there_is_room_again(world):
    limited, router = key(requests_per_minute=10), world.router()
    assert await admitted(router, limited, 11) == 10
    world.now += 20
    with pytest.raises(TooManyRequestsError, match=r"limit of 10 requests a minute; try again in 41 s") as caught:
        async with router.request(limited):
            pass
    assert caught.value.retry_after_s == 41
    assert router.standing(limited) == {"requests": (10, 0, 41.0)}
    world.now += 41
    assert await admitted(router, limited, 10) == 10


async def test_refusals_cost_few_calls(world):
    limited, router = key(requests_per_minute=1), world.router()
    assert await admitted(router, limited, 1000) == 1
    assert world.calls["exchange"] < 5


async def test_places_are_held_until_a_request_ends_and_are_shared_by_routers(world):
    limited, one, two = key(concurrent_requests=3), world.router("a"), world.router("b")
    held = [router.request(limited) for router in (one, one, two)]
    for request in held:
        await request.__aenter__()
    for router in (one, two):
        assert await admitted(router, limited) == 0
    world.now += 1
    with pytest.raises(TooManyRequestsError, match="3 requests at a time"):
        async with one.request(limited):
            pass
    for request in held:
        await request.__aexit__(None, None, None)
    world.now += 1
    assert await admitted(one, limited, 50) == 50
    await one._exchange(limited, one._account(limited))  # as it does every second
    held = [two.request(limited) for _ in range(3)]
    for request in held:
        await request.__aenter__()
    assert await admitted(one, limited) == 0


async def test_places_of_a_router_that_died_come_back(world):
    limited, dead, other = key(concurrent_requests=1), world.router("dead"), world.router("other")
    await dead.request(limited).__aenter__()
    assert await admitted(other, limited) == 0
    world.now += PRESENT_S + 1
    assert await admitted(other, limited) == 1


async def test_a_thousand_requests_at_once_share_calls_and_stay_within_the_limit(world):
    limited, routers = key(requests_per_minute=400, concurrent_requests=1000), [world.router(name) for name in "ab"]
    counts = await asyncio.gather(*(admitted(routers[number % 2], limited) for number in range(1000)))
    assert 380 <= sum(counts) <= 400
    assert world.calls["exchange"] < 20


async def test_tokens_are_taken_as_expected_and_settled_as_used(world):
    limited, router = key(tokens_per_minute=1000), world.router()
    for _ in range(3):
        await router.take_tokens(limited, 300)
    with pytest.raises(TooManyRequestsError, match="1000 tokens a minute"):
        await router.take_tokens(limited, 300)
    for _ in range(3):
        router.settle_tokens(limited, 300, 100)
    world.now += 1
    await router.take_tokens(limited, 700)
    router.settle_tokens(limited, 700, 5000)  # more than was expected: it counts, and nothing else passes
    world.now += 30
    with pytest.raises(TooManyRequestsError):
        await router.take_tokens(limited, 1)
    world.now += 61
    await router.take_tokens(limited, 10**6)  # more than the limit waits for all of it
    with pytest.raises(TooManyRequestsError):
        await router.take_tokens(limited, 1)


async def test_requests_of_different_sizes_that_wait_together_all_end(world):
    limited, router = key(tokens_per_minute=1000), world.router()
    results = await asyncio.gather(
        *(router.take_tokens(limited, amount) for amount in (900, 300, 50, 50, 400)), return_exceptions=True
    )
    taken = sum(size for size, one in zip((900, 300, 50, 50, 400), results, strict=True) if one is None)
    assert 0 < taken <= 1000
    assert all(one is None or isinstance(one, TooManyRequestsError) for one in results)


async def test_a_new_counter_learns_what_was_granted(world):
    limited, routers = key(requests_per_minute=100), [world.router(name) for name in "ab"]
    for router in routers:
        assert await admitted(router, limited, 40) == 40
        world.now += 1
        await router._exchange(limited, router._account(limited))  # as it does every second
    world.begin_counter()
    world.now += 10
    await routers[1]._exchange(limited, routers[1]._account(limited))  # as it does every second
    assert await admitted(routers[0], limited, 100) == 20
    world.now += 52
    assert await admitted(routers[0], limited, 100) == 80


async def test_without_the_counter_a_router_counts_alone_and_reports_later(world):
    limited, router, other = key(requests_per_minute=10, concurrent_requests=2), world.router(), world.router("b")
    assert await admitted(router, limited, 4) == 4
    world.lost, calls = True, world.calls["exchange"]
    world.now += 5
    assert await admitted(router, limited, 20) == 6
    assert world.calls["exchange"] - calls == 1  # not one for each request
    world.lost = False
    world.now += LOST_S
    assert await admitted(router, limited) == 0
    assert await admitted(other, limited) == 0


async def test_without_the_counter_a_router_remembers_what_others_were_granted(world):
    limited, router, other = key(requests_per_minute=20), world.router(), world.router("b")
    assert await admitted(other, limited, 10) == 10
    assert await admitted(router, limited, 4) == 4
    world.lost = True
    world.now += 5
    assert await admitted(router, limited, 20) == 6
    world.now += 61
    assert await admitted(router, limited, 30) == 20


async def test_without_the_counter_keys_with_limits_can_be_refused(world):
    limited, router = key(requests_per_minute=10), world.router(when_lost="refuse")
    world.lost = True
    with pytest.raises(UnavailableError, match="limits of keys can't be counted now"):
        async with router.request(limited):
            pass
    assert await admitted(router, key(), 5) == 5
    world.lost = False
    world.now += LOST_S
    assert await admitted(router, limited) == 1


async def test_changed_limits_count_at_once(world):
    router = world.router()
    assert await admitted(router, key(requests_per_minute=5), 9) == 5
    world.now += 1
    assert await admitted(router, key(requests_per_minute=8), 9) == 3
    world.now += 1
    assert await admitted(router, key(), 9) == 9

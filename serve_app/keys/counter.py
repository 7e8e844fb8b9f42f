"""The counter of what keys have used, one for all routers: it gives each router leases, so that few requests ask it."""

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from serve_app.keys.window import Window
from serve_app.telemetry.replica import begin_replica

PRESENT_S = 10.0  # a router that is silent for longer holds no places any more


@dataclass(frozen=True, slots=True)
class Want:
    """Of one quantity: `amount` at best, at least `least`, or nothing.

    `used` was taken without asking; what is given back is negative.
    """

    limit: int | None = None
    amount: int = 0
    least: int = 0
    used: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """What a router asks for a key; of the places for concurrent requests it says how many it holds."""

    router: str
    incarnation: str
    key: str
    requests: Want = Want()
    tokens: Want = Want()
    concurrent: int | None = None
    held: int = 0
    places: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """What a router may use of one quantity, what is left for all, and when there is room again."""

    amount: int = 0
    left: int = 0
    room_in_s: float = 0.0
    reset_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Grant:
    requests: Lease
    tokens: Lease
    places: int


@dataclass(frozen=True, slots=True)
class History:
    """What a router was granted for a key within the last minute, by second; for a counter that has lost its own."""

    requests: Mapping[int, int]
    tokens: Mapping[int, int]
    held: int


@dataclass(slots=True)
class Ledger:
    """One key's use; `places` are those that each router holds, with the time it said so."""

    requests: Window = field(default_factory=Window)
    tokens: Window = field(default_factory=Window)
    places: dict[str, tuple[int, float]] = field(default_factory=dict)

    def held(self, now: float) -> int:
        for router in [router for router, (_, seen) in self.places.items() if now - seen > PRESENT_S]:
            del self.places[router]
        return sum(count for count, _ in self.places.values())


class KeyCounter:
    """A deployment of one replica. It keeps nothing on disk: a new one learns from the routers what was granted."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        begin_replica()
        self._clock = clock
        self._incarnation = uuid.uuid4().hex
        self._ledgers: dict[str, Ledger] = defaultdict(Ledger)
        self._known: set[str] = set()

    def restore(self, router: str, histories: Mapping[str, History]) -> str:
        """A router's first call; returns the incarnation that it has to name in the others."""
        now = self._clock()
        if router not in self._known:
            self._known.add(router)
            for key, history in histories.items():
                ledger = self._ledgers[key]
                ledger.requests.add_all(history.requests)
                ledger.tokens.add_all(history.tokens)
                ledger.places[router] = (history.held, now)
        return self._incarnation

    def exchange(self, ask: Ask) -> Grant | None:
        """None for a router that this counter doesn't know yet."""
        if ask.incarnation != self._incarnation:
            return None
        now, ledger = self._clock(), self._ledgers[ask.key]
        requests = _lease(ledger.requests, ask.requests, now)
        tokens = _lease(ledger.tokens, ask.tokens, now)
        ledger.places[ask.router] = (ask.held, now)
        free = ask.places if ask.concurrent is None else ask.concurrent - ledger.held(now)
        places = max(0, min(ask.places, free))
        ledger.places[ask.router] = (ask.held + places, now)
        return Grant(requests, tokens, places)

    def describe(self) -> dict[str, int]:
        return {"keys": len(self._ledgers)}


def _lease(window: Window, want: Want, now: float) -> Lease:
    if want.limit is None:
        return Lease()
    if want.used:
        window.add(now, want.used)
    left = want.limit - window.total(now)
    least = min(want.least, want.limit)  # what is larger than the limit has to wait for all of it
    amount = max(0, min(want.amount, left)) if left >= least else 0
    if amount:
        window.add(now, amount)
    room_in_s = 0.0 if amount or not least else window.room_in_s(now, want.limit, least)
    return Lease(amount, max(left - amount, 0), room_in_s, window.empty_in_s(now))

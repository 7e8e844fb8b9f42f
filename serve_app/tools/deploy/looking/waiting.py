"""Waits until a deployment is as it should be: shows what it sees, and ends early where waiting can't help."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.errors import UnavailableError
from serve_app.tools.deploy.looking.explaining import Reason, missing_of, reasons_of
from serve_app.tools.deploy.looking.observation import Observation
from serve_app.tools.deploy.looking.screen import Screen
from serve_app.tools.deploy.looking.telling import BAD, BUSY

CONFIRMATIONS = 5  # a status can be of the moment before a change


@dataclass(frozen=True, slots=True)
class Pace:
    timeout_s: float
    every_s: float = 2.0
    settle_s: float = 0.0  # how long it must be seen as it should be, look after look


class Steady:
    """Whether something has held for so long without a break."""

    def __init__(self, needed_s: float) -> None:
        self._needed_s = needed_s
        self._since: float | None = None

    @property
    def begun(self) -> bool:
        return self._since is not None

    def enough(self, holds: bool, now: float) -> bool:
        if not holds:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= self._needed_s


@dataclass(frozen=True, slots=True)
class Outcome:
    reached: bool
    seen: Observation | None
    reasons: tuple[Reason, ...] = ()
    hopeless: bool = False


def wait(
    observe: Callable[[], Observation],
    reached: Callable[[Observation], bool],
    screen: Screen,
    pace: Pace,
    explain: Callable[[Observation], tuple[Reason, ...]] = reasons_of,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Outcome:
    """The API may be away for a while; what is forbidden or wrong is raised."""
    deadline, hopeless, away = now() + pace.timeout_s, 0, False
    steady = Steady(pace.settle_s)
    seen: Observation | None = None
    reasons: tuple[Reason, ...] = ()
    with screen:
        while True:
            try:
                seen = observe()
                reasons, away = explain(seen), False
                screen.update(seen, reasons)
                if steady.enough(reached(seen), now()):
                    return Outcome(True, seen)
                hopeless = hopeless + 1 if any(one.hopeless for one in reasons) else 0
            except UnavailableError as problem:
                if not away:
                    screen.say(f"{problem}; trying again", BUSY)
                away = True
                steady.enough(False, now())
            if hopeless >= CONFIRMATIONS or (not steady.begun and now() + pace.every_s > deadline):
                return Outcome(False, seen, reasons, hopeless >= CONFIRMATIONS)
            sleep(pace.every_s)


def tell(outcome: Outcome, screen: Screen, pace: Pace, what: str) -> None:
    """Why a wait ended without what it was for."""
    why = "it can't come by itself" if outcome.hopeless else f"not after {pace.timeout_s:g} s"
    screen.say(f"{what}: {why}", BAD)
    for reason in outcome.reasons:
        screen.say(f"  why: {reason}", BAD)
    if outcome.seen is None:
        screen.say("  why: the cluster couldn't be read", BAD)
        return
    for missing in missing_of(outcome.seen):
        screen.say(f"  missing: {missing}", BUSY)

"""Waits for a service to reach a state: shows each status, and stops early on a permanent problem."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from serve_app.errors import UnavailableError
from serve_app.tools.deploy.status.model import ServiceStatus
from serve_app.tools.deploy.status.problems import Problem, problems_of
from serve_app.tools.deploy.status.report import BAD, BUSY, report
from serve_app.tools.deploy.status.screen import Screen

CONFIRMATIONS = 5  # a single status may still describe the moment before a change

Explain = Callable[[ServiceStatus], tuple[Problem, ...]]


@dataclass(frozen=True, slots=True)
class Pace:
    timeout_s: float
    every_s: float = 2.0
    settle_s: float = 0.0  # how long the state must hold without a break


@dataclass(frozen=True, slots=True)
class WaitResult:
    reached: bool
    seen: ServiceStatus | None
    problems: tuple[Problem, ...] = ()
    permanent: bool = False


class Steady:
    """Whether a condition has held long enough without a break."""

    def __init__(self, needed_s: float) -> None:
        self._needed_s = needed_s
        self._since: float | None = None

    @property
    def started(self) -> bool:
        return self._since is not None

    def update(self, holds: bool, now: float) -> bool:
        if not holds:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= self._needed_s


def wait(
    read: Callable[[], ServiceStatus],
    reached: Callable[[ServiceStatus], bool],
    screen: Screen,
    pace: Pace,
    explain: Explain = problems_of,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> WaitResult:
    """Retries while the API is unavailable; every other error is raised."""
    deadline, permanent, unavailable = now() + pace.timeout_s, 0, False
    steady = Steady(pace.settle_s)
    seen: ServiceStatus | None = None
    problems: tuple[Problem, ...] = ()
    with screen:
        while True:
            try:
                seen = read()
                problems, unavailable = explain(seen), False
                screen.update(seen, problems)
                if steady.update(reached(seen), now()):
                    return WaitResult(True, seen)
                permanent = permanent + 1 if any(one.permanent for one in problems) else 0
            except UnavailableError as problem:
                if not unavailable:
                    screen.say(f"{problem}; retrying", BUSY)
                unavailable = True
                steady.update(False, now())
            if permanent >= CONFIRMATIONS or (not steady.started and now() + pace.every_s > deadline):
                return WaitResult(False, seen, problems, permanent >= CONFIRMATIONS)
            sleep(pace.every_s)


def watch(read: Callable[[], ServiceStatus], screen: Screen, every_s: float) -> None:
    """Until interrupted; an API that is unavailable at the start is an error."""
    first = [read()]

    def problems(seen: ServiceStatus) -> tuple[Problem, ...]:
        return () if seen.up_to_date else tuple(replace(one, permanent=False) for one in problems_of(seen))

    wait(lambda: first.pop() if first else read(), lambda _: False, screen, Pace(math.inf, every_s), problems)


def show_failure(result: WaitResult, screen: Screen, pace: Pace, what: str) -> None:
    """The status at the end of a wait that failed."""
    why = "it can't recover without a change" if result.permanent else f"timed out after {pace.timeout_s:g} s"
    screen.say(f"{what}: {why}", BAD)
    if result.seen is None:
        screen.say("the cluster couldn't be read", BAD)
    else:
        screen.show(report(result.seen, result.problems))

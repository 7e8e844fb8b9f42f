"""Two sides measured in alternation, so that changes of the machine affect both; each round gives one ratio."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Measurement:
    """`remarks` say what makes the numbers doubtful; `failed` counts requests."""

    numbers: dict[str, float]
    remarks: tuple[str, ...] = ()
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison, measured once per round."""

    name: str
    measure: Callable[[], Measurement]


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound for a ratio, or for the number itself if there is no baseline."""

    number: str
    bound: float
    is_maximum: bool = False

    def is_reached(self, value: float) -> bool:
        return value <= self.bound if self.is_maximum else value >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.is_maximum else '≥'} {self.bound:g}"


@dataclass(slots=True)
class Result:
    """The measurements of all rounds; `baseline` is empty if the service is measured alone."""

    service: list[Measurement] = field(default_factory=list)
    baseline: list[Measurement] = field(default_factory=list)

    def values(self, number: str) -> list[float]:
        """One ratio per round, or the number itself without a baseline."""
        ours = [one.numbers[number] for one in self.service]
        if not self.baseline:
            return ours
        pairs = zip(ours, (one.numbers[number] for one in self.baseline), strict=True)
        return [value / other if other else math.nan for value, other in pairs]

    def median(self, number: str) -> float:
        """NaN if any round has no number, so that no goal is reached."""
        values = self.values(number)
        return math.nan if any(map(math.isnan, values)) else statistics.median(values)

    @property
    def failed(self) -> int:
        return sum(one.failed for one in (*self.service, *self.baseline))

    def remarks(self) -> list[str]:
        return sorted({remark for one in (*self.service, *self.baseline) for remark in one.remarks})


def run_rounds(sides: Sequence[Side], rounds: int, report: Callable[[str], None]) -> Result:
    """The side that goes first alternates, because the second finds a warmer machine."""
    result = Result()
    measurements = {side.name: to for side, to in zip(sides, (result.service, result.baseline), strict=False)}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            report(f"round {number + 1} of {rounds}: {side.name}")
            measurements[side.name].append(side.measure())
    return result

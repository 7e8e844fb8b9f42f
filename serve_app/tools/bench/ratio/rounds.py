"""Two contenders measured in turn, so that what else the machine does falls on both; ratios come from pairs."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Numbers = dict[str, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """What one turn gave; `remarks` say what makes the numbers doubtful."""

    numbers: Numbers
    remarks: tuple[str, ...] = ()
    failed: int = 0  # requests


Turn = Callable[[], Measured]


@dataclass(frozen=True, slots=True)
class Goal:
    """What the ratio of a number should be, or with no peer the number itself."""

    number: str
    bound: float
    is_most: bool = False  # else it is the least

    def is_reached(self, value: float) -> bool:
        return value <= self.bound if self.is_most else value >= self.bound

    def __str__(self) -> str:
        return f"{'≤' if self.is_most else '≥'} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Contender:
    name: str
    turn: Turn


@dataclass(slots=True)
class Result:
    """The rounds of one comparison; without a peer the service's own numbers count."""

    ours: list[Measured] = field(default_factory=list)
    theirs: list[Measured] = field(default_factory=list)

    def values(self, number: str) -> list[float]:
        """A ratio a round."""
        mine = [turn.numbers[number] for turn in self.ours]
        if not self.theirs:
            return mine
        pairs = zip(mine, self.theirs, strict=True)
        return [value / peer.numbers[number] if peer.numbers[number] else math.nan for value, peer in pairs]

    def median(self, number: str) -> float:
        """Not a number where a turn gave none: then no goal is reached."""
        values = self.values(number)
        return math.nan if any(map(math.isnan, values)) else statistics.median(values)

    @property
    def failed(self) -> int:
        return sum(turn.failed for turn in (*self.ours, *self.theirs))

    def remarks(self) -> list[str]:
        return sorted({remark for turn in (*self.ours, *self.theirs) for remark in turn.remarks})


def contest(contenders: Sequence[Contender], rounds: int, tell: Callable[[str], None]) -> Result:
    """Ours first and theirs first by turns: whoever is second finds a warmer machine."""
    result = Result()
    of = dict(zip((contender.name for contender in contenders), (result.ours, result.theirs), strict=False))
    for number in range(rounds):
        order = contenders if number % 2 == 0 else list(reversed(contenders))
        for contender in order:
            tell(f"round {number + 1} of {rounds}: {contender.name}")
            of[contender.name].append(contender.turn())
    return result

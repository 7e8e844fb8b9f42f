"""Which settings are tried, and which is best: an objective under a bound, and the frontier of all that was seen."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from serve_app.tools.bench.sweep.space import Setting, Space
from serve_app.tools.bench.sweep.trial import Point

PASSES = 3  # over the names, at most
BETTER = 1.01  # less is noise


@dataclass(frozen=True, slots=True)
class Objective:
    """The most requests a second whose p99 keeps the bound; or the least p99 at no fewer requests a second."""

    kind: str = "throughput"
    max_p99_ms: float | None = None
    min_rate: float = 0.0

    def allows(self, point: Point) -> bool:
        in_time = self.max_p99_ms is None or point.p99_ms <= self.max_p99_ms
        return in_time and point.rate >= self.min_rate and not point.errors and point.rate > 0

    def value(self, point: Point) -> float:
        """More is better."""
        return point.rate if self.kind == "throughput" else 1e3 / point.p99_ms

    def best(self, points: Iterable[Point]) -> Point | None:
        return max(filter(self.allows, points), key=self.value, default=None)


@dataclass(slots=True)
class Search:
    """`try_out` measures a setting; nothing is tried twice."""

    space: Space
    objective: Objective
    try_out: Callable[[Setting], Sequence[Point]]
    points: dict[Setting, Sequence[Point]] = field(default_factory=dict)

    def everything(self) -> None:
        for setting in self.space.all():
            self._value(setting)

    def one_at_a_time(self) -> None:
        """From the start: the best value of one name after the other, until none of them changes."""
        current = self.space.start
        value = self._value(current)
        for _ in range(PASSES):
            before = current
            for name in self.space.names():
                for candidate in self.space.beside(current, name):
                    if (found := self._value(candidate)) > value * BETTER:
                        current, value = candidate, found
            if current == before:
                return

    def _value(self, setting: Setting) -> float:
        if setting not in self.points:
            self.points[setting] = self.try_out(setting)
        best = self.objective.best(self.points[setting])
        return self.objective.value(best) if best else 0.0

    def seen(self) -> list[Point]:
        return [point for points in self.points.values() for point in points]


def frontier(points: Iterable[Point]) -> list[Point]:
    """Those that no other beats in both requests a second and p99, the quickest first."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.p99_ms, -point.rate)):
        if point.rate > 0 and not point.errors and (not kept or point.rate > kept[-1].rate):
            kept.append(point)
    return kept

"""The search: which settings are tried, which point is best for an objective, and the frontier of all points."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from serve_app.tools.bench.sweep.space import Setting, Space
from serve_app.tools.bench.sweep.trial import Point

PASSES = 3  # over all parameters, at most
BETTER = 1.01  # less is noise


@dataclass(frozen=True, slots=True)
class Objective:
    """The highest rate with p99 within its bound, or the lowest p99 with the rate within its bound."""

    kind: str = "throughput"
    max_p99_ms: float | None = None
    min_rate: float = 0.0

    def allows(self, point: Point) -> bool:
        fast_enough = self.max_p99_ms is None or point.p99_ms <= self.max_p99_ms
        return fast_enough and point.rate >= self.min_rate and not point.errors and point.rate > 0

    def value(self, point: Point) -> float:
        """Higher is better."""
        return point.rate if self.kind == "throughput" else 1e3 / point.p99_ms

    def best(self, points: Iterable[Point]) -> Point | None:
        return max(filter(self.allows, points), key=self.value, default=None)


@dataclass(slots=True)
class Search:
    """`measure` is called once for each setting."""

    space: Space
    objective: Objective
    measure: Callable[[Setting], Sequence[Point]]
    points: dict[Setting, Sequence[Point]] = field(default_factory=dict)

    def try_all(self) -> None:
        for setting in self.space.all():
            self._value(setting)

    def try_one_at_a_time(self) -> None:
        """The best value of one parameter after the other, until none changes."""
        current = self.space.start
        value = self._value(current)
        for _ in range(PASSES):
            before = current
            for name in self.space.names():
                for candidate in self.space.neighbours(current, name):
                    if (found := self._value(candidate)) > value * BETTER:
                        current, value = candidate, found
            if current == before:
                return

    def _value(self, setting: Setting) -> float:
        if setting not in self.points:
            self.points[setting] = self.measure(setting)
        best = self.objective.best(self.points[setting])
        return self.objective.value(best) if best else 0.0

    def measured(self) -> list[Point]:
        return [point for points in self.points.values() for point in points]


def frontier(points: Iterable[Point]) -> list[Point]:
    """The points that no other point beats in both rate and p99, by p99."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.p99_ms, -point.rate)):
        if point.rate > 0 and not point.errors and (not kept or point.rate > kept[-1].rate):
            kept.append(point)
    return kept

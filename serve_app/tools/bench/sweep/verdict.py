"""Whether the best setting replaces the committed one: it must win again, in alternation with it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serve_app.tools.bench.ratio.rounds import Measurement, Side, run_rounds
from serve_app.tools.bench.sweep.search import Objective, Point, Setting
from serve_app.tools.bench.sweep.trial import Trial

MIN_GAIN = 1.02  # a smaller gain does not replace the committed config


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ratio` is the value of the best setting divided by that of the committed one."""

    kept: Setting
    is_committed: bool
    reason: str
    ratio: float | None = None

    def __str__(self) -> str:
        return f"{'the committed config stays' if self.is_committed else 'another config is better'}: {self.reason}"


def judge(
    trial: Trial, committed: Setting, best: Point, objective: Objective, rounds: int, report: Callable[[str], None]
) -> Verdict:
    """Measures both again, because the best of many measurements is partly luck."""
    if best.setting == committed:
        return Verdict(committed, True, "no other setting was better")
    points: dict[Setting, list[Point]] = {best.setting: [], committed: []}

    def side(name: str, setting: Setting) -> Side:
        def measure() -> Measurement:
            measured = trial.run(setting, [best.clients])
            points[setting] += measured
            return Measurement({"value": objective.value(measured[0]) if measured[0].rate else math.nan})

        return Side(name, measure)

    ratio = run_rounds([side("best", best.setting), side("committed", committed)], rounds, report).median("value")
    number = "requests/s" if objective.kind == "throughput" else "1/p99"
    gain = f"{best.setting} gives {ratio:.2f} times the committed config's {number} at {best.clients} clients"
    if not _within_bounds(objective, points[best.setting]):
        return Verdict(committed, True, f"{gain}, but was out of bounds in most rounds", ratio)
    if not _within_bounds(objective, points[committed]):
        return Verdict(best.setting, False, f"{gain}, and the committed config is out of bounds", ratio)
    if ratio >= MIN_GAIN:
        return Verdict(best.setting, False, gain, ratio)
    return Verdict(committed, True, gain, ratio)


def _within_bounds(objective: Objective, points: Sequence[Point]) -> bool:
    """In most rounds."""
    return 2 * sum(map(objective.allows, points)) > len(points)

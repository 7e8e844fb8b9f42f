"""Whether the best setting found replaces the committed one, and the files that say so."""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from serve_app.tools.bench.ratio.rounds import Contender, Measured, contest
from serve_app.tools.bench.sweep.report import as_json, config_text, draw
from serve_app.tools.bench.sweep.search import Objective
from serve_app.tools.bench.sweep.space import Setting
from serve_app.tools.bench.sweep.trial import Point, Trial

WORTH_IT = 1.02  # what measures less than that better doesn't replace anything


@dataclass(frozen=True, slots=True)
class Verdict:
    """`ratio` is the best's number by the committed one's, measured in turns."""

    kept: Setting
    is_committed: bool
    why: str
    ratio: float | None = None

    def __str__(self) -> str:
        return f"{'the committed config stays' if self.is_committed else 'another config is better'}: {self.why}"


def judge(
    trial: Trial, committed: Setting, best: Point, objective: Objective, rounds: int, tell: Callable[[str], None]
) -> Verdict:
    """The best of many measurements is partly luck: it has to win again, in turns with the committed one."""
    if best.setting == committed:
        return Verdict(committed, True, "no other setting was better")
    seen: dict[Setting, list[Point]] = {best.setting: [], committed: []}

    def contender(name: str, setting: Setting) -> Contender:
        def turn() -> Measured:
            points = trial.run(setting, [best.clients])
            seen[setting] += points
            return Measured({"value": objective.value(points[0]) if points[0].rate else math.nan})

        return Contender(name, turn)

    result = contest([contender("best", best.setting), contender("committed", committed)], rounds, tell)
    ratio = result.median("value")
    number = "requests/s" if objective.kind == "throughput" else "1/p99"
    why = f"{best.setting} gives {ratio:.2f} times the committed config's {number} at {best.clients} clients"
    if not _keeps(objective, seen[best.setting]):
        return Verdict(committed, True, f"{why}, and broke the bounds in most rounds", ratio)
    if not _keeps(objective, seen[committed]):
        return Verdict(best.setting, False, f"{why}, which the committed one answers out of bounds", ratio)
    return Verdict(*((best.setting, False) if ratio >= WORTH_IT else (committed, True)), why, ratio)


def _keeps(objective: Objective, points: Sequence[Point]) -> bool:
    return 2 * sum(map(objective.allows, points)) > len(points)


def write(folder: Path, trial: Trial, points: Sequence[Point], committed: Setting, verdict: Verdict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    in_place = trial.repository.all[trial.model].folder / "config.pbtxt"
    changed = config_text(verdict.kept.applied_to(trial.config), verdict.why)
    (folder / "config.pbtxt").write_text(in_place.read_text() if verdict.is_committed else changed)
    document = {"committed": asdict(committed)} | asdict(verdict)
    (folder / "sweep.json").write_text(as_json(points, document, ["scripts/sweep", *sys.argv[1:]]))
    draw(points, committed, verdict.kept, trial.through, folder / "sweep.png")


def apply(folder: Path, trial: Trial) -> Path:
    """Put the written config in place, whole or not at all."""
    in_place = trial.repository.all[trial.model].folder / "config.pbtxt"
    fresh = in_place.with_suffix(".new")
    fresh.write_text((folder / "config.pbtxt").read_text())
    fresh.replace(in_place)
    return in_place

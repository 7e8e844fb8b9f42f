"""Results of a sweep: lines, the frontier as a table, a chart, JSON with every point, and the chosen config."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from google.protobuf import text_format
from rich.console import Console

from serve_app.tools.bench.report import chart, machine_line, print_table, write_json
from serve_app.tools.bench.sweep.search import Point, Setting, frontier
from serve_app.tools.bench.sweep.trial import Trial
from serve_app.tools.bench.sweep.verdict import Verdict


def format_line(points: Sequence[Point]) -> str:
    loads = (f"{point.clients} clients {point.rate:.1f}/s p99 {point.p99_ms:.0f} ms" for point in points)
    return f"{points[0].setting}: " + "; ".join(loads)


def show(points: Sequence[Point], committed: Setting, console: Console) -> None:
    rows = [
        (one.p99_ms, one.p50_ms, one.rate, one.clients,
         f"{one.setting}{' (committed)' if one.setting == committed else ''}")
        for one in frontier(points)
    ]  # fmt: skip
    title = "frontier: no other point is better in both rate and p99"
    print_table(console, ("p99 ms", "p50 ms", "requests/s", "clients", "setting"), rows, title)


def draw(points: Sequence[Point], committed: Setting, best: Setting, title: str, path: Path) -> None:
    with chart(path, figsize=(9, 5)) as (_, axis):
        axis.scatter([one.p99_ms for one in points], [one.rate for one in points], s=14, color="gray", label="tried")
        edge = frontier(points)
        axis.plot([one.p99_ms for one in edge], [one.rate for one in edge], color="tab:blue", label="frontier")
        for setting, color, name in ((committed, "tab:orange", "committed"), (best, "tab:green", "best")):
            own = [one for one in points if one.setting == setting]
            times, rates = [one.p99_ms for one in own], [one.rate for one in own]
            axis.scatter(times, rates, s=60, marker="x", color=color, label=f"{name}: {setting}")
        axis.set_xlabel("p99, ms")
        axis.set_ylabel("requests/s")
        axis.set_title(f"{title}, {machine_line()}")
        axis.legend(fontsize=8)


def write(folder: Path, trial: Trial, points: Sequence[Point], committed: Setting, verdict: Verdict) -> None:
    """config.pbtxt, sweep.json and sweep.png."""
    folder.mkdir(parents=True, exist_ok=True)
    text = _committed_config(trial).read_text()
    if not verdict.is_committed:
        origin = f"# Chosen by scripts/sweep on {machine_line()}: {verdict.reason}\n"
        text = origin + str(text_format.MessageToString(verdict.kept.applied_to(trial.config)))
    (folder / "config.pbtxt").write_text(text)
    tried = [asdict(point) for point in points]
    write_json(folder / "sweep.json", "sweep", tried=tried, committed=asdict(committed), **asdict(verdict))
    draw(points, committed, verdict.kept, trial.through, folder / "sweep.png")


def apply(folder: Path, trial: Trial) -> Path:
    """Replace the model's config atomically with the one in the folder."""
    path = _committed_config(trial)
    new = path.with_suffix(".new")
    new.write_text((folder / "config.pbtxt").read_text())
    new.replace(path)
    return path


def _committed_config(trial: Trial) -> Path:
    return trial.repository.all[trial.model].folder / "config.pbtxt"

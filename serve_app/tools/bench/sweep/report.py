"""What a sweep says: a line a trial, the frontier as a table and a chart, JSON with every point, and a config."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from rich.console import Console
from rich.table import Table
from tritonclient.grpc.model_config_pb2 import ModelConfig

from serve_app.tools.bench.charts import chart
from serve_app.tools.bench.report import as_document, machine_line
from serve_app.tools.bench.sweep.search import frontier
from serve_app.tools.bench.sweep.space import Setting
from serve_app.tools.bench.sweep.trial import Point


def line_of(points: Sequence[Point]) -> str:
    loads = (f"{point.clients} clients {point.rate:.1f}/s p99 {point.p99_ms:.0f} ms" for point in points)
    return f"{points[0].setting}: " + "; ".join(loads)


def show(points: Sequence[Point], committed: Setting, console: Console) -> None:
    table = Table(box=None, pad_edge=False, title="frontier: none is better in both", title_justify="left")
    for name in ("p99 ms", "p50 ms", "requests/s", "clients", "setting"):
        table.add_column(name, justify="left" if name == "setting" else "right")
    for point in frontier(points):
        mark = " (committed)" if point.setting == committed else ""
        times = f"{point.p99_ms:.1f}", f"{point.p50_ms:.1f}"
        table.add_row(*times, f"{point.rate:.1f}", str(point.clients), f"{point.setting}{mark}")
    console.print(table)


def draw(points: Sequence[Point], committed: Setting, best: Setting, title: str, path: Path) -> None:
    with chart(path, figsize=(9, 5)) as (_, axis):
        axis.scatter([one.p99_ms for one in points], [one.rate for one in points], s=14, color="gray", label="tried")
        edge = frontier(points)
        axis.plot([one.p99_ms for one in edge], [one.rate for one in edge], color="tab:blue", label="frontier")
        for setting, color, name in ((committed, "tab:orange", "committed"), (best, "tab:green", "best")):
            of_it = [one for one in points if one.setting == setting]
            axis.scatter([one.p99_ms for one in of_it], [one.rate for one in of_it], s=60, marker="x", color=color,
                         label=f"{name}: {setting}")  # fmt: skip
        axis.set_xlabel("p99, ms")
        axis.set_ylabel("requests/s")
        axis.set_title(f"{title}, {machine_line()}")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)


def as_json(points: Sequence[Point], outcome: dict[str, Any], command: Sequence[str]) -> str:
    tried = [asdict(point) | {"setting": asdict(point.setting)} for point in points]
    return as_document(command, tried=tried, **outcome)


def config_text(config: ModelConfig, why: str) -> str:
    origin = f"# Chosen by scripts/sweep on {machine_line()}: {why}\n"
    return origin + str(text_format.MessageToString(config))

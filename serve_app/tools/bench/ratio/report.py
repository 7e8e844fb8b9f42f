"""Ratios as a table, as JSON with every round, and as a chart with their goals."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from serve_app.tools.bench.ratio.comparisons import COMPARISONS
from serve_app.tools.bench.ratio.rounds import Goal, Measurement, Result
from serve_app.tools.bench.report import chart, machine_line, print_table

Results = Mapping[str, Result]


def _rows(results: Results) -> Iterator[tuple[str, Goal, Result]]:
    for name, result in results.items():
        for goal in COMPARISONS[name].goals:
            yield name, goal, result


def show(results: Results, console: Console) -> None:
    cells = []
    for name, goal, result in _rows(results):
        values, median = result.values(goal.number), result.median(goal.number)
        sides = (_median_of(result.service, goal), _median_of(result.baseline, goal))
        ratio = f"{median:.2f}" if result.baseline else None
        reached = "reached" if goal.is_reached(median) else "missed"
        cells.append((name, goal.number, *sides, ratio, f"{min(values):.2f} to {max(values):.2f}", goal, reached))
    print_table(console, ("", "number", "service", "baseline", "ratio", "spread", "goal", ""), cells)
    for name, result in results.items():
        for line in (COMPARISONS[name].title, *result.remarks()):
            console.print(f"{name}: {line}")


def _median_of(measurements: Sequence[Measurement], goal: Goal) -> float | None:
    return statistics.median(one.numbers[goal.number] for one in measurements) if measurements else None


def as_rows(results: Results) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "title": COMPARISONS[name].title,
            "number": goal.number,
            "ours": [one.numbers[goal.number] for one in result.service],
            "theirs": [one.numbers[goal.number] for one in result.baseline],
            "ratios": [round(value, 4) for value in result.values(goal.number)],
            "median": round(result.median(goal.number), 4),
            "goal": str(goal),
            "reached": goal.is_reached(result.median(goal.number)),
            "remarks": result.remarks(),
        }
        for name, goal, result in _rows(results)
    ]


def draw(results: Results, path: Path) -> None:
    lines = [row for row in _rows(results) if row[2].baseline]  # the others have no ratio
    with chart(path, figsize=(10, 1 + 0.6 * len(lines))) as (_, axis):
        for at, (_, goal, result) in enumerate(lines):
            values, median = result.values(goal.number), result.median(goal.number)
            color = "tab:green" if goal.is_reached(median) else "tab:orange"
            axis.barh(at, median, color=color, height=0.6)
            axis.plot([min(values), max(values)], [at, at], color="black")
            axis.plot([goal.bound, goal.bound], [at - 0.4, at + 0.4], color="tab:red", linestyle=":")
        axis.set_yticks(range(len(lines)), [f"{name}  {goal.number}  {goal}" for name, goal, _ in lines])
        axis.invert_yaxis()
        axis.set_xlabel("service ÷ baseline; line: spread; dotted: goal")
        axis.set_title(machine_line())

"""Ratios for people and for machines: a table, a chart against the goals, and JSON with every turn."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from serve_app.tools.bench.charts import chart
from serve_app.tools.bench.ratio.comparisons import COMPARISONS
from serve_app.tools.bench.ratio.rounds import Goal, Measured, Result
from serve_app.tools.bench.report import as_document, machine_line


def show(results: Mapping[str, Result], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("", "number", "ours", "theirs", "ratio", "spread", "goal", ""):
        table.add_column(name, justify="right" if name in ("ours", "theirs", "ratio") else "left")
    for name, goal, result in rows(results):
        values = result.values(goal.number)
        median = result.median(goal.number)
        spread = f"{min(values):.2f} to {max(values):.2f}"
        sides = (middle(result.ours, goal), middle(result.theirs, goal))
        reached = "reached" if goal.is_reached(median) else "missed"
        ratio = f"{median:.2f}" if result.theirs else "-"
        table.add_row(name, goal.number, *sides, ratio, spread, str(goal), reached)
    console.print(table)
    for name, result in results.items():
        console.print(f"{name}: {COMPARISONS[name].title}")
        for remark in result.remarks():
            console.print(f"{name}: {remark}")


def rows(results: Mapping[str, Result]) -> Iterator[tuple[str, Goal, Result]]:
    for name, result in results.items():
        for goal in COMPARISONS[name].goals:
            yield name, goal, result


def middle(turns: Sequence[Measured], goal: Goal) -> str:
    return f"{statistics.median(turn.numbers[goal.number] for turn in turns):.1f}" if turns else "-"


def as_json(results: Mapping[str, Result], command: Sequence[str]) -> str:
    compared = [
        {
            "name": name,
            "title": COMPARISONS[name].title,
            "number": goal.number,
            "ours": [turn.numbers[goal.number] for turn in result.ours],
            "theirs": [turn.numbers[goal.number] for turn in result.theirs],
            "ratios": [round(value, 4) for value in result.values(goal.number)],
            "median": round(result.median(goal.number), 4),
            "goal": str(goal),
            "reached": goal.is_reached(result.median(goal.number)),
            "remarks": result.remarks(),
        }
        for name, goal, result in rows(results)
    ]
    return as_document(command, compared=compared)


def draw(results: Mapping[str, Result], path: Path) -> None:
    """Each ratio with its spread, and a mark where the goal is."""
    lines = [row for row in rows(results) if row[2].theirs]  # the others have no ratio
    with chart(path, figsize=(10, 1 + 0.6 * len(lines))) as (_, axis):
        for at, (_, goal, result) in enumerate(lines):
            values, median = result.values(goal.number), result.median(goal.number)
            color = "tab:green" if goal.is_reached(median) else "tab:orange"
            axis.barh(at, median, color=color, height=0.6)
            axis.plot([min(values), max(values)], [at, at], color="black")
            axis.plot([goal.bound, goal.bound], [at - 0.4, at + 0.4], color="tab:red", linestyle=":")
        axis.set_yticks(range(len(lines)), [f"{name}  {goal.number}  {goal}" for name, goal, _ in lines])
        axis.invert_yaxis()
        axis.set_xlabel("the service's number ÷ the peer's; line: spread; dotted: goal")
        axis.grid(alpha=0.3, axis="x")
        axis.set_title(machine_line())

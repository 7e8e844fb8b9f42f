"""Output of all benchmarks: tables, JSON files that name the machine, and PNG charts."""

import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDTH = 160  # characters, if the output is not a terminal
NUMBER = re.compile(r"-|[\d.]+%?")


def open_console() -> Console:
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)


def print_table(console: Console, header: Sequence[str], rows: Iterable[Sequence[object]], title: str = "") -> None:
    """Floats get one decimal, None is "-", and columns of numbers are aligned to the right."""
    cells = [[_format(value) for value in row] for row in rows]
    table = Table(box=None, pad_edge=False, title=title or None, title_justify="left")
    for position, name in enumerate(header):
        is_number = all(NUMBER.fullmatch(row[position]) for row in cells)
        table.add_column(name, justify="right" if is_number else "left")
    for row in cells:
        table.add_row(*map(escape, row))
    console.print(table)


def _format(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {f"p{at}": round(float(np.percentile(values, at)), 2) for at in (50, 90, 99)}


def count_errors(errors: Mapping[str, int]) -> list[str]:
    return [f"{count} × {error}" for error, count in errors.items()]


def machine() -> dict[str, Any]:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def machine_line() -> str:
    about = machine()
    return f"{about['cores']} cores of {about['processor']}"


def write_json(path: Path, script: str, **content: object) -> None:
    """Beside the content: the machine, and the command with its arguments."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine(), "command": [f"scripts/{script}", *sys.argv[1:]]} | content
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")


@contextmanager
def chart(path: Path, *grid: int, **options: Any) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, as from pyplot.subplots, written as PNG at the end; imports matplotlib only when used."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(*grid, **options)
    try:
        yield figure, axes
        for axis in np.ravel(axes):
            axis.grid(alpha=0.3)
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=90)
    finally:
        pyplot.close(figure)

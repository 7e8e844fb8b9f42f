"""Numbers for people and for machines: a table, a chart, and JSON with the machine that they are from."""

import json
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from serve_app.tools.bench.charts import chart
from serve_app.tools.bench.tracks import Row

WIDE = 160  # characters
BUSY_GENERATOR = 0.8  # of a core: then it is the load that limits


def open_console() -> Console:
    """Tables keep their lines where nobody looks at a terminal."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)


def percentiles(took_ms: Sequence[float]) -> dict[str, float]:
    if not took_ms:
        return {}
    return {f"p{at}": round(float(np.percentile(took_ms, at)), 2) for at in (50, 90, 99)}


def throughput(row: Row) -> float:
    return len(row.outcome.took_ms) / row.outcome.wall_s if row.outcome.wall_s else 0.0


def p99(row: Row) -> float:
    return percentiles(row.outcome.took_ms).get("p99", 0.0)


def mean_batch(row: Row) -> float:
    executions = sum(row.batches.values())
    return sum(size * count for size, count in row.batches.items()) / executions if executions else 0.0


def is_limited_by_load(row: Row) -> bool:
    return row.outcome.generator_share > BUSY_GENERATOR


def show(rows: Sequence[Row], console: Console) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("track", "load", "images/s", "p50 ms", "p90 ms", "p99 ms", "mean batch", "errors"):
        table.add_column(name, justify="left" if name in ("track", "load", "errors") else "right")
    for row in rows:
        at = percentiles(row.outcome.took_ms)
        errors = ", ".join(f"{count} × {kind}" for kind, count in row.outcome.errors.items()) or "-"
        numbers = [f"{at[key]:.1f}" if at else "-" for key in ("p50", "p90", "p99")]
        table.add_row(row.track, load_of(row), f"{throughput(row):.1f}", *numbers, f"{mean_batch(row):.1f}", errors)
    console.print(table)
    for row in rows:
        if is_limited_by_load(row):
            share = f"{row.outcome.generator_share:.0%}"
            console.print(
                f"track {row.track}, {load_of(row)}: making the load took {share} of a core and may be the limit"
            )


def load_of(row: Row) -> str:
    return f"{row.rate_per_s:g}/s" if row.rate_per_s else f"{row.clients} clients"


def machine() -> dict[str, Any]:
    """Where the numbers are from."""
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


def as_document(command: Sequence[str], **content: Any) -> str:
    """JSON with the machine that the numbers are from and the command that gave them."""
    return json.dumps({"machine": machine(), "command": list(command)} | content, indent=1)


def store(text: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def as_json(rows: Sequence[Row], command: Sequence[str]) -> str:
    measured = [
        {
            "track": row.track,
            "path": row.path,
            "model": row.model,
            "clients": row.clients,
            "rate_per_s": row.rate_per_s,
            "images": len(row.outcome.took_ms),
            "images_per_s": round(throughput(row), 2),
            "ms": percentiles(row.outcome.took_ms),
            "errors": dict(row.outcome.errors),
            "batches": {str(size): count for size, count in sorted(row.batches.items())},
            "generator_share": round(row.outcome.generator_share, 3),
            "sent_late_ms": percentiles(row.outcome.late_ms),
        }
        for row in rows
    ]
    return as_document(command, measured=measured)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Bars for one load, lines where it was swept."""
    by_track: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_track[row.track].append(row)
    with chart(path, 1, 2, figsize=(10, 4)) as (figure, (rates, times)):
        if all(len(of_track) == 1 for of_track in by_track.values()):
            names = list(by_track)
            rates.bar(names, [throughput(rows[0]) for rows in by_track.values()], color="tab:blue")
            times.bar(names, [p99(rows[0]) for rows in by_track.values()], color="tab:red")
            figure.suptitle(f"{load_of(rows[0])}, {machine_line()}")
        else:
            for name, of_track in by_track.items():
                at = [row.rate_per_s or row.clients for row in of_track]
                rates.plot(at, [throughput(row) for row in of_track], marker="o", label=name)
                times.plot(at, [p99(row) for row in of_track], marker="o", label=name)
            rates.set_xlabel("requests/s asked for" if rows[0].rate_per_s else "clients")
            rates.legend()
        rates.set_ylabel("images/s")
        times.set_ylabel("p99, ms")
        for axis in (rates, times):
            axis.grid(alpha=0.3)

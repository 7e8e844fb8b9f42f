"""What a check says: tables, JSON with the machine and all that was left out, and a chart of the ladder."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from serve_app.tools.bench.charts import chart
from serve_app.tools.bench.gpu_check.engines import Choice
from serve_app.tools.bench.gpu_check.outcome import Check, problems_of
from serve_app.tools.bench.gpu_check.parts import Fidelity, Rung
from serve_app.tools.bench.gpu_check.probes import Finding
from serve_app.tools.bench.report import as_document, machine_line, mean_batch, p99, percentiles, throughput

HOW = (
    "One after the other, each engine in a process of its own: clients in that process ask again when they are "
    "answered, with neither HTTP nor Ray between. Batches are those that Triton's statistics say were executed."
)


def title(check: Check) -> str:
    if check.device == "cpu":
        return "GPU check tried on device cpu, which says nothing of a GPU"
    gpu = next((finding for finding in check.findings if finding.key == "gpu"), None)
    return f"GPU check on {gpu.detail}" if gpu and gpu.found else "GPU check without a GPU"


def show_findings(findings: Sequence[Finding], console: Console) -> None:
    rows = ((one.name, "found" if one.found else "not found", one.version or "-", one.detail) for one in findings)
    console.print(_table(("what is there", "", "version", ""), rows))


def show_choices(choices: Sequence[Choice], console: Console) -> None:
    rows = ((one.engine, "can run" if one.runs else "can't run", _said_of(one)) for one in choices)
    console.print(_table(("engine", "", ""), rows))


def _said_of(choice: Choice) -> str:
    if not choice.runs:
        return "; ".join(choice.reasons)
    without = [f"without track D: {reason}" for reason in choice.pipeline_reasons]
    return "; ".join([*without, *choice.remarks]) or "-"


def show_measured(check: Check, console: Console) -> None:
    console.print(title(check), style="bold", markup=False)
    if check.fidelity:
        console.print(_fidelity_table(check))
    if check.rungs:
        console.print(_ladder_table(check))
        console.print(HOW)
    for left in check.not_run():
        console.print(f"not run: {left}", markup=False)


def _fidelity_table(check: Check) -> Table:
    names = (
        "engine", "device", "size", "track", "fidelity", "precision", "pictures", "boxes", "unmatched", "ties",
        "worst IoU", "worst score", "largest batch", "",
    )  # fmt: skip
    return _table(names, (_fidelity_cells(row) for row in check.fidelity))


def _fidelity_cells(row: Fidelity) -> tuple[str, ...]:
    seen = row.difference
    batch = "-" if row.largest_batch is None else f"{row.largest_batch} of {row.max_batch}"
    worst = ((seen.worst_iou, 4), (seen.worst_score, 5))
    return (
        row.part.engine, row.device, row.part.size, row.part.track, row.part.kind, row.precision,
        *map(str, (seen.pictures, seen.boxes, seen.unmatched, seen.ties)),
        *("-" if value is None else f"{value:.{digits}f}" for value, digits in worst),
        batch, "; ".join(row.problems) or "passed",
    )  # fmt: skip


def _ladder_table(check: Check) -> Table:
    names = (
        "engine", "device", "size", "track", "precision", "clients", "images/s", "÷ A", "p50 ms", "p99 ms",
        "mean batch", "loop", "",
    )  # fmt: skip
    return _table(names, (_ladder_cells(check, rung) for rung in check.rungs))


def _ladder_cells(check: Check, rung: Rung) -> tuple[str, ...]:
    row, ratio, at = rung.row, check.ratio(rung), percentiles(rung.row.outcome.took_ms)
    return (
        rung.part.engine, rung.device, rung.part.size, rung.part.track, rung.precision, str(row.clients),
        f"{throughput(row):.1f}", "-" if ratio is None else f"{ratio:.2f}",
        *(f"{at[key]:.1f}" if at else "-" for key in ("p50", "p99")),
        f"{mean_batch(row):.1f}" if row.batches else "-", f"{row.outcome.generator_share:.0%}",
        "; ".join(problems_of(rung)) or "-",
    )  # fmt: skip


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(*map(escape, row))  # reasons have brackets, which are no markup
    return table


def as_json(check: Check, command: Sequence[str]) -> str:
    complaints = list(check.complaints())
    return as_document(
        command,
        title=title(check),
        device=check.device,
        passed=not complaints,
        complaints=complaints,
        how=HOW,
        weights=check.weights,
        findings=[asdict(finding) for finding in check.findings],
        engines=[asdict(choice) | {"can_run": choice.runs} for choice in check.choices],
        fidelity=[_fidelity_row(row) for row in check.fidelity],
        ladder=[_ladder_row(check, rung) for rung in check.rungs],
        not_run=[asdict(left) for left in check.not_run()],
    )


def _fidelity_row(row: Fidelity) -> dict[str, Any]:
    rest = {"largest_batch": row.largest_batch, "max_batch": row.max_batch, "problems": row.problems}
    about = asdict(row.part) | {"device": row.device, "precision": row.precision}
    return about | asdict(row.difference) | rest | {"passed": row.passed}


def _ladder_row(check: Check, rung: Rung) -> dict[str, Any]:
    row, ratio = rung.row, check.ratio(rung)
    return {
        "engine": rung.part.engine,
        "size": rung.part.size,
        "track": rung.part.track,
        "device": rung.device,
        "precision": rung.precision,
        "clients": row.clients,
        "images": len(row.outcome.took_ms),
        "seconds": round(row.outcome.wall_s, 2),
        "images_per_s": round(throughput(row), 2),
        "ratio_to_a": None if ratio is None else round(ratio, 3),
        "ms": percentiles(row.outcome.took_ms),
        "batches": {str(size): count for size, count in sorted(row.batches.items())},
        "event_loop_share": round(row.outcome.generator_share, 3),
        "problems": problems_of(rung),
    }


def draw(check: Check, path: Path) -> None:
    """Each rung's images a second, with its ratio to track A, and its p99; in the ladder's order."""
    rungs = check.rungs
    names = [f"{one.part.track} {one.part.size}, {one.part.engine} {one.precision}, {one.device}" for one in rungs]
    with chart(path, 1, 2, figsize=(12, 1.6 + 0.35 * len(rungs)), sharey=True) as (figure, (rates, times)):
        bars = rates.barh(names, [throughput(one.row) for one in rungs], color="tab:blue")
        ratios = [check.ratio(one) for one in rungs]
        rates.bar_label(bars, ["" if ratio is None else f"{ratio:.1f} × A" for ratio in ratios], padding=3, fontsize=8)
        times.barh(names, [p99(one.row) for one in rungs], color="tab:red")
        rates.set_xlabel("images/s")
        times.set_xlabel("p99, ms")
        rates.margins(x=0.15)
        rates.invert_yaxis()
        for axis in (rates, times):
            axis.grid(alpha=0.3, axis="x")
        figure.suptitle(f"{title(check)}\n{rungs[0].row.clients} clients, {machine_line()}", fontsize=10)

"""The report of a check: tables, JSON, and a chart of the ladder."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from serve_app.tools.bench.gpu_check.check import Check
from serve_app.tools.bench.gpu_check.engines import EngineChoice
from serve_app.tools.bench.gpu_check.jobs import Fidelity, Speed
from serve_app.tools.bench.gpu_check.probes import Finding
from serve_app.tools.bench.report import chart, machine_line, print_table, write_json

METHOD = (
    "One after the other, each engine in a process of its own: clients in that process send the next picture when the "
    "last is answered, without HTTP and Ray. Batches are those that Triton executed, by its statistics."
)
FIDELITY_COLUMNS = (
    "engine", "device", "size", "track", "fidelity", "precision", "pictures", "boxes", "unmatched", "ties",
    "worst IoU", "worst score", "largest batch", "",
)  # fmt: skip
LADDER_COLUMNS = (
    "engine", "device", "size", "track", "precision", "clients", "images/s", "÷ A", "p50 ms", "p99 ms", "mean batch",
    "event loop", "",
)  # fmt: skip


def title(check: Check) -> str:
    if check.device == "cpu":
        return "GPU check on device cpu: its numbers do not apply to a GPU"
    gpu = next((finding for finding in check.findings if finding.key == "gpu"), None)
    return f"GPU check on {gpu.detail}" if gpu and gpu.found else "GPU check without a GPU"


def show_findings(findings: Sequence[Finding], console: Console) -> None:
    rows = [(one.name, "found" if one.found else "not found", one.version or None, one.detail) for one in findings]
    print_table(console, ("component", "", "version", ""), rows)


def show_engines(choices: Sequence[EngineChoice], console: Console) -> None:
    rows = []
    for choice in choices:
        limits = (*(f"without track D: {reason}" for reason in choice.pipeline_reasons), *choice.remarks)
        details = "; ".join(limits if choice.runs else choice.reasons)
        rows.append((choice.engine, "can run" if choice.runs else "can't run", details or None))
    print_table(console, ("engine", "", ""), rows)


def show_results(check: Check, console: Console) -> None:
    console.print(title(check), style="bold", markup=False)
    if check.fidelity:
        print_table(console, FIDELITY_COLUMNS, map(_fidelity_cells, check.fidelity))
    if check.ladder:
        print_table(console, LADDER_COLUMNS, [_ladder_cells(check, speed) for speed in check.ladder])
        console.print(METHOD)
    for one in check.not_run():
        console.print(f"not run: {one}", markup=False)


def _fidelity_cells(one: Fidelity) -> tuple[object, ...]:
    difference = one.difference
    return (
        one.part.engine, one.device, one.part.size, one.part.track, one.part.kind, one.precision,
        difference.pictures, difference.boxes, difference.unmatched, difference.ties,
        _rounded(difference.worst_iou, 4), _rounded(difference.worst_score, 5),
        None if one.largest_batch is None else f"{one.largest_batch} of {one.max_batch}",
        "; ".join(one.problems) or "passed",
    )  # fmt: skip


def _ladder_cells(check: Check, speed: Speed) -> tuple[object, ...]:
    result = speed.row.result
    return (
        speed.part.engine, speed.device, speed.part.size, speed.part.track, speed.precision, speed.row.load.clients,
        result.throughput, _rounded(check.ratio_to_a(speed), 2),
        *(result.percentiles_ms.get(key) for key in ("p50", "p99")),
        speed.row.mean_batch or None, f"{result.generator_share:.0%}", "; ".join(speed.problems) or None,
    )  # fmt: skip


def _rounded(value: float | None, digits: int) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def write(check: Check, path: Path) -> None:
    problems = list(check.problems())
    write_json(
        path,
        "gpu_check",
        title=title(check),
        device=check.device,
        passed=not problems,
        problems=problems,
        method=METHOD,
        weights=check.weights,
        findings=[asdict(finding) for finding in check.findings],
        engines=[asdict(choice) | {"can_run": choice.runs} for choice in check.choices],
        fidelity=[_fidelity_row(one) for one in check.fidelity],
        ladder=[_ladder_row(check, speed) for speed in check.ladder],
        not_run=[asdict(one) for one in check.not_run()],
    )


def _fidelity_row(one: Fidelity) -> dict[str, Any]:
    row = asdict(one)
    part, difference = row.pop("part"), row.pop("difference")
    return {**part, **row, **difference, "passed": not one.problems}


def _ladder_row(check: Check, speed: Speed) -> dict[str, Any]:
    ratio = check.ratio_to_a(speed)
    about = {"device": speed.device, "precision": speed.precision}
    row = asdict(speed.part) | about | speed.row.as_dict()
    row |= {"seconds": round(speed.row.result.wall_s, 2), "ratio_to_a": None if ratio is None else round(ratio, 3)}
    return row | {"problems": list(speed.problems)}


def draw(check: Check, path: Path) -> None:
    """Images/s, with ratios to track A, and p99."""
    ladder = check.ladder
    names = [f"{one.part.track} {one.part.size}, {one.part.engine} {one.precision}, {one.device}" for one in ladder]
    with chart(path, 1, 2, figsize=(12, 1.6 + 0.35 * len(ladder)), sharey=True) as (figure, (rates, times)):
        bars = rates.barh(names, [one.row.result.throughput for one in ladder], color="tab:blue")
        ratios = [check.ratio_to_a(one) for one in ladder]
        rates.bar_label(bars, ["" if ratio is None else f"{ratio:.1f} × A" for ratio in ratios], padding=3, fontsize=8)
        times.barh(names, [one.row.result.percentiles_ms.get("p99", 0) for one in ladder], color="tab:red")
        rates.set_xlabel("images/s")
        times.set_xlabel("p99, ms")
        rates.margins(x=0.15)
        rates.invert_yaxis()
        figure.suptitle(f"{title(check)}\n{ladder[0].row.load}, {machine_line()}", fontsize=10)

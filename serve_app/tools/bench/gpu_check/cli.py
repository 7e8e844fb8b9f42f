"""The command line of `scripts/gpu_check`."""

import argparse
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from serve_app.settings import PROJECT_ROOT, Settings, read_config, settings_of
from serve_app.tools.arguments import FAILED, Defaults, Parser, end_with, number
from serve_app.tools.bench.gpu_check.engines import ENGINES, choose, why_no_baseline
from serve_app.tools.bench.gpu_check.findings import find_all
from serve_app.tools.bench.gpu_check.outcome import Check
from serve_app.tools.bench.gpu_check.parts import Fidelity, Job, Load, Rung, Said
from serve_app.tools.bench.gpu_check.pictures import check_pictures
from serve_app.tools.bench.gpu_check.plan import Planner, with_weights
from serve_app.tools.bench.gpu_check.report import as_json, draw, show_choices, show_findings, show_measured
from serve_app.tools.bench.gpu_check.work import run_baseline, run_engine
from serve_app.tools.bench.gpu_check.worker import Work, in_child
from serve_app.tools.bench.report import open_console, store
from serve_app.tools.export.layout import ON_GPU, kind_of

Hear = Callable[[Any], None]
REPORT, CHART = "gpu_check.json", "gpu_check.png"
# Nothing of a GPU is touched where the processor is asked for; ultralytics would choose the GPU by itself.
ENVIRONMENTS = {"cpu": {"CUDA_VISIBLE_DEVICES": "", "YOLO_VERBOSE": "false"}, "cuda": {"YOLO_VERBOSE": "false"}}


def parse(description: str, arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=description, formatter_class=Defaults)
    add = parser.add_argument
    add("--engine", action="append", choices=ENGINES, help="this one only; may be given again; without it all that can")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="cpu tries the flow where there is no GPU")
    add("--config", type=Path, default=PROJECT_ROOT / "configs" / "serve.gpu.yaml", help="its `detection` is checked")
    add("--clients", type=number(int, 1), default=64, metavar="N", help="of the ladder: that many at once")
    add("--duration", type=number(float, 0.1), default=10.0, metavar="S", help="seconds that are measured, for each")
    add("--warmup", type=number(float, 0), default=2.0, metavar="S", help="seconds before them, for each")
    add("--output", type=Path, default=PROJECT_ROOT / "runs" / "gpu_check", metavar="FOLDER",
        help=f"for {REPORT}, {CHART}, and what is built")  # fmt: skip
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    console = open_console()
    settings = settings_of(read_config(options.config))
    check = Check(options.device, tuple(options.engine or ()))
    folder = options.output.absolute()
    try:
        look_around(check, settings, folder, console)
        if any(choice.runs for choice in check.choices):
            measure(check, settings, options, folder, console)
    except (KeyboardInterrupt, SystemExit):
        check.interrupted = True
        raise
    finally:  # what was measured before something ended it is not lost
        show_measured(check, console)
        save(check, folder)
        tell_verdict(check, folder, console)
    return FAILED if any(check.complaints()) else 0


def look_around(check: Check, settings: Settings, folder: Path, console: Console) -> None:
    with console.status("what is there"):
        check.findings = find_all(settings.detection.plans, folder / "findings")
    show_findings(check.findings, console)
    check.choices = choose(check.findings, check.device, settings.detection, check.named or ENGINES)
    check.baseline_reasons = why_no_baseline(check.findings, check.device)
    show_choices(check.choices, console)


def measure(check: Check, settings: Settings, options: argparse.Namespace, folder: Path, console: Console) -> None:
    configs = served_configs(settings)
    settings, check.missing_weights = with_weights(settings)
    check.weights = {size: Path(source.weights).name for size, source in settings.detection.models.items()}
    load = Load(options.clients, options.duration, options.warmup)
    planner = Planner(settings, check.device, check_pictures(), load, folder)
    baseline = planner.baseline(measured=not check.baseline_reasons)
    jobs = [job for choice in check.choices if choice.runs and (job := planner.engine(choice)).tracks]
    check.planned = [part for job in (baseline, *jobs) for part in job.parts()]
    with progress_of(check, console) as hear:
        work(check, baseline, hear, run_baseline)
        for job in jobs:
            if all(size in check.references for size in job.detection.models):
                work(check, job, hear, run_engine, configs, check.references)
            else:
                check.failures[job.engine] = "there is no reference to compare with"


def served_configs(settings: Settings) -> Path | None:
    """None where the configuration is for another kind of machine: its models' configs would be no use here."""
    detection = settings.detection
    return detection.model_repository if kind_of(detection.engine) is ON_GPU else None


@contextmanager
def progress_of(check: Check, console: Console) -> Iterator[Hear]:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=len(check.planned))

        def hear(event: Any) -> None:
            check.hear(event)
            if isinstance(event, Fidelity | Rung):
                progress.advance(task)
            elif isinstance(event, Said) and console.is_terminal:
                progress.update(task, description=event.line)
            elif isinstance(event, Said):
                console.print(event.line, markup=False)

        yield hear


def work(check: Check, job: Job, hear: Hear, task: Work, *arguments: object) -> None:
    log = job.log.with_name("log")
    reason = in_child(task, job, *arguments, hear=hear, log=log, environment=ENVIRONMENTS[check.device])
    if reason:
        check.failures[job.engine] = reason
    save(check, log.parent.parent)  # whatever becomes of the next


def save(check: Check, folder: Path) -> None:
    store(as_json(check, ["scripts/gpu_check", *sys.argv[1:]]), folder / REPORT)
    (folder / CHART).unlink(missing_ok=True)  # of another run: it would look like this one's
    if check.rungs:
        draw(check, folder / CHART)


def tell_verdict(check: Check, folder: Path, console: Console) -> None:
    console.print(f"written: {folder / REPORT}{f' and {CHART}' if check.rungs else ''}", markup=False)
    complaints = list(check.complaints())
    more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
    console.print(f"not passed: {complaints[0]}{more}" if complaints else "passed", markup=False)


def main(description: str, arguments: list[str] | None = None) -> None:
    for signum in (signal.SIGTERM, signal.SIGHUP):  # what was started ends as with Ctrl-C
        signal.signal(signum, lambda signum, _: sys.exit(128 + signum))
    end_with(run, parse(description, arguments))

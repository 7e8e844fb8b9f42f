"""The command line of `scripts/gpu_check`."""

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2
from rich.console import Console

from serve_app.clients.pictures import read_pictures
from serve_app.settings import PROJECT_ROOT, Settings, read_config, settings_of
from serve_app.tools.arguments import FAILED, Defaults, Parser, end_with, number
from serve_app.tools.bench.baselines.processes import exit_on_signals
from serve_app.tools.bench.gpu_check.check import Check
from serve_app.tools.bench.gpu_check.engines import ENGINES, baseline_reasons, choose_engines
from serve_app.tools.bench.gpu_check.findings import find_all
from serve_app.tools.bench.gpu_check.jobs import Job, Message, Planner, find_all_weights
from serve_app.tools.bench.gpu_check.report import draw, show_engines, show_findings, show_results, write
from serve_app.tools.bench.gpu_check.tasks import run_baseline, run_engine
from serve_app.tools.bench.gpu_check.worker import Task, run_in_process
from serve_app.tools.bench.load import Load
from serve_app.tools.bench.report import open_console
from serve_app.tools.export.demo.scenes import HELD_OUT_SIZES, draw_scene
from serve_app.tools.export.layout import ON_GPU, kind_of

REPORT, CHART = "gpu_check.json", "gpu_check.png"
# Without CUDA_VISIBLE_DEVICES ultralytics would use the GPU for device cpu.
ENVIRONMENTS = {"cpu": {"CUDA_VISIBLE_DEVICES": "", "YOLO_VERBOSE": "false"}, "cuda": {"YOLO_VERBOSE": "false"}}
SCENES = range(900, 915)  # seeds; the tests of the service use the same
PHOTOGRAPHS = ("bus.jpg", "zidane.jpg")


def parse(description: str, arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=description, formatter_class=Defaults)
    add = parser.add_argument
    add(
        "--engine", action="append", choices=ENGINES, help="engine to check, may be repeated; default: all that can run"
    )
    add("--device", choices=("cuda", "cpu"), default="cuda", help="cpu tries the check without a GPU")
    add("--config", type=Path, default=PROJECT_ROOT / "configs" / "serve.gpu.yaml", help="its `detection` is checked")
    add("--pictures", type=Path, help="a picture, or a folder of them; default: drawn scenes and two photographs")
    add("--clients", type=number(int, 1), default=64, metavar="N", help="clients at once, for the ladder")
    add("--duration", type=number(float, 0.1), default=10.0, metavar="S", help="seconds of each measurement")
    add("--warmup", type=number(float, 0), default=2.0, metavar="S", help="seconds before each measurement")
    add("--output", type=Path, default=PROJECT_ROOT / "runs" / "gpu_check", metavar="FOLDER",
        help=f"folder for {REPORT}, {CHART} and the models that are built")  # fmt: skip
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    console = open_console()
    settings = settings_of(read_config(options.config))
    pictures = tuple(read_pictures(options.pictures)) if options.pictures else default_pictures()
    check = Check(options.device, tuple(options.engine or ()))
    load = Load(options.clients, options.duration, options.warmup)
    folder = options.output.absolute()
    try:
        find(check, settings, folder, console)
        if any(choice.runs for choice in check.choices):
            measure(check, settings, pictures, load, folder, console)
    except (KeyboardInterrupt, SystemExit):
        check.interrupted = True
        raise
    finally:  # report what was measured before an interruption or a failure
        show_results(check, console)
        save(check, folder)
        console.print(f"written: {folder / REPORT}{f' and {CHART}' if check.ladder else ''}", markup=False)
        console.print(verdict(check), markup=False)
    return FAILED if any(check.problems()) else 0


def find(check: Check, settings: Settings, folder: Path, console: Console) -> None:
    with console.status("looking for drivers and libraries"):
        check.findings = find_all(settings.detection.plans, folder / "findings")
    show_findings(check.findings, console)
    check.choices = choose_engines(check.findings, check.device, settings.detection, check.requested or ENGINES)
    check.baseline_reasons = baseline_reasons(check.findings, check.device)
    show_engines(check.choices, console)


def measure(
    check: Check, settings: Settings, pictures: tuple[bytes, ...], load: Load, folder: Path, console: Console
) -> None:
    configs = served_configs(settings)
    settings, check.missing_weights = find_all_weights(settings)
    check.weights = {size: Path(source.weights).name for size, source in settings.detection.models.items()}
    planner = Planner(settings, check.device, pictures, load, folder)
    baseline = planner.baseline_job(measured=not check.baseline_reasons)
    jobs = [job for choice in check.choices if choice.runs and (job := planner.engine_job(choice)).tracks]
    check.planned = [part for job in (baseline, *jobs) for part in job.parts()]
    with console.status("") as status:

        def on_event(event: object) -> None:
            check.add(event)
            if isinstance(event, Message):
                status.update(event.line) if console.is_terminal else console.print(event.line, markup=False)

        run_job(check, baseline, on_event, run_baseline)
        for job in jobs:
            if all(size in check.references for size in job.detection.models):
                run_job(check, job, on_event, run_engine, configs, check.references)
            else:
                check.failures[job.engine] = "there is no reference to compare with"


def run_job(check: Check, job: Job, on_event: Callable[[object], None], task: Task, *arguments: object) -> None:
    log, environment = job.log.with_name("log"), ENVIRONMENTS[check.device]
    error = run_in_process(task, job, *arguments, on_event=on_event, log=log, environment=environment)
    if error:
        check.failures[job.engine] = error
    save(check, log.parent.parent)  # so that it is kept if a later job crashes the machine


def served_configs(settings: Settings) -> Path | None:
    """None if the configuration is for processors, whose model configs do not fit."""
    detection = settings.detection
    return detection.model_repository if kind_of(detection.engine) is ON_GPU else None


def default_pictures() -> tuple[bytes, ...]:
    spec = find_spec("ultralytics")  # without its import, which takes seconds
    assert spec is not None
    assert spec.origin
    assets = Path(spec.origin).parent / "assets"
    return (*map(_drawn_scene, SCENES), *((assets / name).read_bytes() for name in PHOTOGRAPHS))


def _drawn_scene(seed: int) -> bytes:
    encoded, jpeg = cv2.imencode(".jpg", draw_scene(seed, size=HELD_OUT_SIZES[seed % len(HELD_OUT_SIZES)]).image)
    assert encoded
    return jpeg.tobytes()


def save(check: Check, folder: Path) -> None:
    write(check, folder / REPORT)
    (folder / CHART).unlink(missing_ok=True)  # of an earlier run
    if check.ladder:
        draw(check, folder / CHART)


def verdict(check: Check) -> str:
    problems = list(check.problems())
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"not passed: {problems[0]}{more}" if problems else "passed"


def main(description: str, arguments: list[str] | None = None) -> None:
    exit_on_signals()
    end_with(run, parse(description, arguments))

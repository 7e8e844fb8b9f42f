"""The command line of `scripts/sweep`."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from serve_app.clients.pictures import read_pictures
from serve_app.errors import InvalidRequestError, ServeAppError
from serve_app.settings import PROJECT_ROOT, read_config, settings_of
from serve_app.tools.arguments import FAILED, Defaults, Parser, end_with, list_of, number
from serve_app.tools.bench.report import open_console
from serve_app.tools.bench.sweep.inputs import inputs_of
from serve_app.tools.bench.sweep.report import line_of, show
from serve_app.tools.bench.sweep.search import Objective, Search
from serve_app.tools.bench.sweep.space import Setting, Space
from serve_app.tools.bench.sweep.trial import Point, Trial
from serve_app.tools.bench.sweep.verdict import apply, judge, write
from serve_app.triton.overlay import Preparation
from serve_app.triton.plans import LocalPlans
from serve_app.triton.repository import ModelRepository, backing_of

CORES = len(os.sched_getaffinity(0))
DIVISIONS = sorted({0, 1, max(1, CORES // 2)})
BATCHES = (1, 8, 32, 64, 128)
OPTION_OF = {
    "instances": "instances", "max_batch": "batches", "delay_us": "delays", "threads": "threads", "streams": "streams",
}  # fmt: skip


def shape(text: str) -> tuple[str, list[int]]:
    name, _, dims = text.partition(":")
    return name, [int(part) for part in dims.split(",")]


def parse(description: str, arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=description, formatter_class=Defaults)
    add = parser.add_argument
    whole, counted = list_of(number(int, 1)), list_of(number(int, 0))
    add("model", help="whose config.pbtxt is tried")
    add("--through", metavar="ENSEMBLE", help="send the load to an ensemble over it; without this to the model itself")
    add("--clients", type=whole, default=[1, 4, 16], metavar="N,…", help="requests at a time, each tried")
    add("--instances", type=whole, default=[1, 2], metavar="N,…", help="instance counts to try")
    add("--batches", type=whole, metavar="N,…", help=f"max batch sizes to try (of {BATCHES}, what ensembles allow)")
    add(
        "--delays", type=list_of(number(int, 0)), default=[0, 500, 5000], metavar="US,…", help="queue delays to try, µs"
    )
    add("--threads", type=counted, default=DIVISIONS, metavar="N,…", help="engine threads to try; 0: one a core")
    add(
        "--streams",
        type=counted,
        default=DIVISIONS,
        metavar="N,…",
        help="engine streams to try; 0: one a thread",
    )
    add("--objective", choices=("throughput", "latency"), default="throughput", help="what is best")
    add("--max-p99-ms", type=number(float, 0.1), metavar="MS", help="what is slower is out")
    add("--min-rate", type=number(float, 0), default=0.0, metavar="R", help="what answers fewer a second is out")
    add("--search", choices=("quick", "all"), default="quick", help="one value after the other, or every combination")
    add("--duration", type=number(float, 0.1), default=3.0, metavar="S", help="seconds of each measurement")
    add("--warmup", type=number(float, 0), default=1.0, metavar="S", help="seconds before it")
    add("--rounds", type=number(int, 1), default=5, metavar="N", help="of the best against the committed, at the end")
    add("--picture", type=Path, default=PROJECT_ROOT / "docs" / "shapes.jpg", help="what detectors are asked")
    add("--shape", type=shape, action="append", default=[], metavar="INPUT:N,…", help="of an input of no fixed shape")
    add("--config", type=Path, default=PROJECT_ROOT / "configs" / "serve.yaml", help="names the model repository")
    add("--repository", type=Path, help="the model repository, where it is another")
    add("--output", type=Path, metavar="FOLDER", help="for config.pbtxt, sweep.json and sweep.png (runs/sweep/MODEL)")
    add("--apply", action="store_true", help="put the best config.pbtxt in place, if it isn't the committed one")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    console = open_console()
    trial = trial_of(options)
    values = {name: getattr(options, option) for name, option in OPTION_OF.items()}
    space = Space(Setting.of(trial.config), values | {"max_batch": batches_of(trial, options.batches)})
    objective = Objective(options.objective, options.max_p99_ms, options.min_rate)
    with progress_on(console) as progress:
        search = Search(space, objective, lambda setting: try_out(trial, setting, options.clients, progress))
        progress.add_task("settings", total=space.size(options.search == "all"))
        search.everything() if options.search == "all" else search.one_at_a_time()
    show(search.seen(), space.start, console)
    best = objective.best(search.seen())
    if best is None:
        console.print("no setting keeps the bounds; the frontier says what is possible")
        return FAILED
    verdict = judge(trial, space.start, best, objective, options.rounds, console.print)
    folder = options.output or PROJECT_ROOT / "runs" / "sweep" / trial.model
    write(folder, trial, search.seen(), space.start, verdict)
    console.print(f"{verdict}\nwritten: {folder}/config.pbtxt, sweep.json, sweep.png")
    if options.apply and not verdict.is_committed:
        console.print(f"applied: {apply(folder, trial)}")
    return 0


def trial_of(options: argparse.Namespace) -> Trial:
    detection = settings_of(read_config(options.config)).detection
    path = options.repository or detection.model_repository
    through = options.through or options.model
    repository = ModelRepository(path, ["*"], None, backing_of(detection))
    for name in (options.model, through):
        if name not in repository.all:
            raise InvalidRequestError(f"no model {name!r} in {path}; there is: {', '.join(repository.all)}")
    if repository.all[options.model].steps:
        steps = ", ".join(repository.all[options.model].steps)
        raise InvalidRequestError(f"{options.model} is an ensemble; sweep one of its models, {steps}, --through it")
    if options.model not in (through, *repository.all[through].steps):
        raise InvalidRequestError(f"--through: {options.model} is no step of {through}")
    picture = read_pictures(options.picture)[0]
    inputs = inputs_of(repository.all[through].config, picture, dict(options.shape))
    preparation = Preparation(device=detection.runs_on, plan_for=LocalPlans(detection.plans, print).plan_for)
    return Trial(repository, options.model, through, inputs, options.duration, options.warmup, preparation)


def batches_of(trial: Trial, asked: Sequence[int] | None) -> list[int]:
    """Triton loads no ensemble whose batches are larger than those of a step."""
    users = [model for model in trial.repository.all.values() if trial.model in model.steps]
    least = max((model.config.max_batch_size for model in users), default=1)
    if asked and min(asked) < least:
        names = ", ".join(model.name for model in users)
        raise InvalidRequestError(f"--batches: {names} ask {trial.model} for batches of up to {least}")
    return list(asked) if asked else [size for size in BATCHES if size >= least]


def progress_on(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def try_out(trial: Trial, setting: Setting, clients: Sequence[int], progress: Progress) -> Sequence[Point]:
    try:
        points = trial.run(setting, clients)
    except ServeAppError as problem:
        if setting == Setting.of(trial.config):
            raise
        progress.console.print(f"{setting}: {problem}")
        return [Point(setting, count, 0.0, 0.0, 0.0, 1) for count in clients]
    progress.console.print(line_of(points))
    for task in progress.task_ids:
        progress.advance(task)
    return points


def main(description: str, arguments: list[str] | None = None) -> None:
    end_with(run, parse(description, arguments))

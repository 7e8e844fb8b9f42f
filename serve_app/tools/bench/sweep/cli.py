"""The command line of `scripts/sweep`."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from serve_app.clients.pictures import read_pictures
from serve_app.errors import InvalidRequestError, ServeAppError
from serve_app.settings import PROJECT_ROOT, read_config, settings_of
from serve_app.tools.arguments import FAILED, Defaults, Parser, end_with, list_of, number
from serve_app.tools.bench.report import open_console
from serve_app.tools.bench.sweep.report import apply, format_line, show, write
from serve_app.tools.bench.sweep.search import Objective, Point, Search, Setting, Space
from serve_app.tools.bench.sweep.trial import Trial, inputs_of
from serve_app.tools.bench.sweep.verdict import judge
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
    counts, counts_or_none = list_of(number(int, 1)), list_of(number(int, 0))
    add("model", help="model to find a config for")
    add("--through", metavar="ENSEMBLE", help="send requests to an ensemble that has the model as a step")
    add("--clients", type=counts, default=[1, 4, 16], metavar="N,…", help="closed loops to measure with")
    add("--instances", type=counts, default=[1, 2], metavar="N,…", help="instance counts to try")
    add(
        "--batches",
        type=counts,
        metavar="N,…",
        help=f"max batch sizes to try; default: of {BATCHES} what ensembles allow",
    )
    add("--delays", type=counts_or_none, default=[0, 500, 5000], metavar="US,…", help="queue delays to try, µs")
    add("--threads", type=counts_or_none, default=DIVISIONS, metavar="N,…", help="engine threads to try; 0: all cores")
    add("--streams", type=counts_or_none, default=DIVISIONS, metavar="N,…", help="streams to try; 0: one per thread")
    add("--objective", choices=("throughput", "latency"), default="throughput", help="what to optimize")
    add("--max-p99-ms", type=number(float, 0.1), metavar="MS", help="highest p99 that is accepted")
    add("--min-rate", type=number(float, 0), default=0.0, metavar="R", help="lowest rate that is accepted, per second")
    add("--search", choices=("quick", "all"), default="quick", help="one parameter after the other, or combinations")
    add("--duration", type=number(float, 0.1), default=3.0, metavar="S", help="seconds of each measurement")
    add("--warmup", type=number(float, 0), default=1.0, metavar="S", help="seconds before each measurement")
    add(
        "--rounds", type=number(int, 1), default=5, metavar="N", help="rounds of the comparison with the present config"
    )
    add("--picture", type=Path, default=PROJECT_ROOT / "docs" / "shapes.jpg", help="picture for detectors")
    add("--shape", type=shape, action="append", default=[], metavar="INPUT:N,…", help="of an input without a fixed one")
    add("--config", type=Path, default=PROJECT_ROOT / "configs" / "serve.yaml", help="names the model repository")
    add("--repository", type=Path, help="another model repository")
    add("--output", type=Path, metavar="FOLDER", help="folder of the results (runs/sweep/MODEL)")
    add("--apply", action="store_true", help="replace the model's config.pbtxt if another is better")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    console = open_console()
    trial = build_trial(options)
    values = {name: getattr(options, option) for name, option in OPTION_OF.items()}
    space = Space(Setting.of(trial.config), values | {"max_batch": batches_to_try(trial, options.batches)})
    objective = Objective(options.objective, options.max_p99_ms, options.min_rate)
    search = Search(space, objective, lambda setting: measure(trial, setting, options.clients, console))
    whole = options.search == "all"
    console.print(f"{'' if whole else 'at least '}{space.size(whole)} settings to try")
    search.try_all() if whole else search.try_one_at_a_time()
    show(search.measured(), space.start, console)
    best = objective.best(search.measured())
    if best is None:
        console.print("no setting is within the bounds; the frontier shows what is possible")
        return FAILED
    verdict = judge(trial, space.start, best, objective, options.rounds, console.print)
    folder = options.output or PROJECT_ROOT / "runs" / "sweep" / trial.model
    write(folder, trial, search.measured(), space.start, verdict)
    console.print(f"{verdict}\nwritten: {folder}/config.pbtxt, sweep.json, sweep.png")
    if options.apply and not verdict.is_committed:
        console.print(f"applied: {apply(folder, trial)}")
    return 0


def build_trial(options: argparse.Namespace) -> Trial:
    detection = settings_of(read_config(options.config)).detection
    path = options.repository or detection.model_repository
    through = options.through or options.model
    repository = ModelRepository(path, ["*"], None, backing_of(detection))
    for name in (options.model, through):
        if name not in repository.all:
            raise InvalidRequestError(f"no model {name!r} in {path}; available: {', '.join(repository.all)}")
    if repository.all[options.model].steps:
        steps = ", ".join(repository.all[options.model].steps)
        raise InvalidRequestError(f"{options.model} is an ensemble; sweep one of its models, {steps}, --through it")
    if options.model not in (through, *repository.all[through].steps):
        raise InvalidRequestError(f"--through: {options.model} is not a step of {through}")
    picture = read_pictures(options.picture)[0]
    inputs = inputs_of(repository.all[through].config, picture, dict(options.shape))
    preparation = Preparation(device=detection.runs_on, plan_for=LocalPlans(detection.plans, print).plan_for)
    return Trial(repository, options.model, through, inputs, options.duration, options.warmup, preparation)


def batches_to_try(trial: Trial, requested: Sequence[int] | None) -> list[int]:
    """Triton does not load an ensemble whose batches are larger than those of its steps."""
    ensembles = [model for model in trial.repository.all.values() if trial.model in model.steps]
    least = max((model.config.max_batch_size for model in ensembles), default=1)
    if requested and min(requested) < least:
        names = ", ".join(model.name for model in ensembles)
        raise InvalidRequestError(
            f"--batches: must be at least {least}, the batch size of {names}; got {min(requested)}"
        )
    return list(requested) if requested else [size for size in BATCHES if size >= least]


def measure(trial: Trial, setting: Setting, clients: Sequence[int], console: Console) -> Sequence[Point]:
    try:
        with console.status(str(setting)):
            points = trial.run(setting, clients)
    except ServeAppError as problem:
        if setting == Setting.of(trial.config):
            raise
        console.print(f"{setting}: {problem}")
        return [Point(setting, count, 0.0, 0.0, 0.0, 1) for count in clients]
    console.print(format_line(points))
    return points


def main(description: str, arguments: list[str] | None = None) -> None:
    end_with(run, parse(description, arguments))

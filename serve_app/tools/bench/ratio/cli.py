"""The command line of `scripts/bench ratio`."""

import argparse
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import groupby
from pathlib import Path
from typing import get_args

import httpx
import psutil
from rich.console import Console

from serve_app.clients.pictures import read_pictures
from serve_app.errors import UnavailableError
from serve_app.settings import PROJECT_ROOT
from serve_app.settings.detection import Precision
from serve_app.tools.arguments import FAILED, Parser, end_with, number
from serve_app.tools.bench.baselines.processes import exit_on_signals
from serve_app.tools.bench.baselines.service import Change, RunningService, build_in_precision, service
from serve_app.tools.bench.load import Load
from serve_app.tools.bench.ratio.comparisons import COMPARISONS
from serve_app.tools.bench.ratio.report import as_rows, draw, show
from serve_app.tools.bench.ratio.rounds import Result, run_rounds
from serve_app.tools.bench.ratio.sides import Setup
from serve_app.tools.bench.report import open_console, write_json

DESCRIPTION = "Compare the service with other servers. Starts the service and each baseline; no other may be running."


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="bench ratio",
        description=DESCRIPTION,
        epilog="\n".join(f"{name}  {one.title}" for name, one in COMPARISONS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="P", help="comparisons to run, of those below; default: all")
    add("--config", type=Path, default=PROJECT_ROOT / "configs" / "serve.yaml", help="of the service, on free ports")
    add(
        "--precision",
        choices=get_args(Precision),
        help="what the engines compute in; builds models of their own for it",
    )
    add("--clients", type=number(int, 1), default=16, metavar="N", help="clients at once (16)")
    add("--duration", type=number(float, 0.1), default=10.0, metavar="S", help="seconds of a measurement (10)")
    add("--warmup", type=number(float, 0), default=2.0, metavar="S", help="seconds before each measurement (2)")
    add("--rounds", type=number(int, 1), default=5, metavar="N", help="measurements of each side, in alternation (5)")
    add("--requests", type=number(int, 10), default=50_000, metavar="N", help="requests of P7 (50000)")
    add("--pictures", type=Path, default=PROJECT_ROOT / "docs" / "shapes.jpg", help="a picture, or a folder of them")
    add("--json", type=Path, metavar="FILE", help="write the numbers and the machine as JSON")
    add("--chart", type=Path, metavar="FILE", help="write a chart of the ratios as PNG")
    options = parser.parse_args(arguments)
    options.names = options.names or list(COMPARISONS)
    for name in options.names:
        if name not in COMPARISONS:
            parser.error(f"no comparison {name!r}; available: {', '.join(COMPARISONS)}")
    return options


def run(options: argparse.Namespace) -> int:
    console = open_console()
    read_pictures(options.pictures)  # fails before anything is started
    if options.precision:
        options.config = build_in_precision(options.config, options.precision, console.print)
    results: dict[str, Result] = {}
    try:
        compare_all(options, results, console)
    except (httpx.HTTPError, psutil.Error) as problem:
        raise UnavailableError(f"the service or its baseline failed: {problem}") from None
    finally:  # report what was measured before a failure
        if results:
            report(options, results, console)
    return FAILED if any(result.failed for result in results.values()) else 0


def compare_all(options: argparse.Namespace, results: dict[str, Result], console: Console) -> None:
    # comparisons that need the same configuration share one service
    for serves, group in groupby(sorted(set(options.names)), key=lambda name: COMPARISONS[name].serves):
        names = list(group)
        console.print(f"starting the service for {', '.join(names)}")
        with start_service(serves, options.config) as running:
            for name in names:
                results[name] = compare(name, running, options, console)


def start_service(serves: Change | None, config: Path) -> AbstractContextManager[RunningService | None]:
    return service(config, f"service-{serves.__name__}", serves) if serves else nullcontext()


def compare(name: str, running: RunningService | None, options: argparse.Namespace, console: Console) -> Result:
    load = Load(options.clients, options.duration, options.warmup)
    url, pid = (running.url, running.pid) if running else ("", 0)
    with ExitStack() as baselines, console.status(name) as status:

        def progress(message: str) -> None:
            line = f"{name}, {message}"
            status.update(line) if console.is_terminal else console.print(line)

        progress("starting the baseline")
        setup = Setup(options.config, url, pid, options.pictures, load, options.requests, baselines)
        comparison = COMPARISONS[name]
        return run_rounds(comparison.sides(setup), comparison.rounds or options.rounds, progress)


def report(options: argparse.Namespace, results: dict[str, Result], console: Console) -> None:
    show(results, console)
    if options.json:
        write_json(options.json, "bench", compared=as_rows(results))
    if options.chart:
        draw(results, options.chart)


def main(arguments: list[str] | None) -> None:
    exit_on_signals()
    end_with(run, parse(arguments))

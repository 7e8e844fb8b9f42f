"""The command line of `scripts/bench ratio`."""

import argparse
import signal
import sys
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import groupby
from pathlib import Path

import httpx
import psutil
from rich.console import Console

from serve_app.clients.pictures import read_pictures
from serve_app.errors import UnavailableError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.arguments import FAILED, Parser, end_with, number
from serve_app.tools.bench.baselines import service as ours
from serve_app.tools.bench.ratio.comparisons import COMPARISONS
from serve_app.tools.bench.ratio.measurements import Load
from serve_app.tools.bench.ratio.report import as_json, draw, show
from serve_app.tools.bench.ratio.rounds import Result, contest
from serve_app.tools.bench.ratio.setup import Stage
from serve_app.tools.bench.report import open_console, store

DESCRIPTION = "Measure the service against what it replaces; starts it, and each peer, by itself: no other may be up."


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="bench ratio",
        description=DESCRIPTION,
        epilog="\n".join(f"{name}  {one.title}" for name, one in COMPARISONS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="P", help="which of those below; none: all of them")
    add("--config", type=Path, default=PROJECT_ROOT / "configs" / "serve.yaml", help="of the service, on free ports")
    add("--clients", type=number(int, 1), default=16, metavar="N", help="at once (16)")
    add("--duration", type=number(float, 0.1), default=10.0, metavar="S", help="seconds of a turn (10)")
    add("--warmup", type=number(float, 0), default=2.0, metavar="S", help="seconds before each turn (2)")
    add("--rounds", type=number(int, 1), default=5, metavar="N", help="turns of each side, by turns (5)")
    add("--requests", type=number(int, 10), default=50_000, metavar="N", help="of P7 (50000)")
    add("--pictures", type=Path, default=PROJECT_ROOT / "docs" / "shapes.jpg", help="a picture, or a folder of them")
    add("--json", type=Path, metavar="FILE", help="write the numbers, with the machine they are from")
    add("--chart", type=Path, metavar="FILE", help="draw the ratios (PNG)")
    options = parser.parse_args(arguments)
    options.names = options.names or list(COMPARISONS)
    for name in options.names:
        if name not in COMPARISONS:
            parser.error(f"no comparison {name!r}; there is: {', '.join(COMPARISONS)}")
    return options


def run(options: argparse.Namespace) -> int:
    console = open_console()
    read_pictures(options.pictures)  # told before anything starts
    results: dict[str, Result] = {}
    try:
        measure_all(options, results, console)
    except (httpx.HTTPError, psutil.Error) as problem:
        raise UnavailableError(f"the service or its peer failed: {problem}") from None
    finally:  # what was measured before something failed is not lost
        if results:
            tell_all(options, results, console)
    return FAILED if any(result.failed for result in results.values()) else 0


def measure_all(options: argparse.Namespace, results: dict[str, Result], console: Console) -> None:
    # neighbours that need the same service share its run
    for serves, group in groupby(sorted(set(options.names)), key=lambda name: COMPARISONS[name].serves):
        names = list(group)
        console.print(f"starting the service for {', '.join(names)}")
        with service_for(serves, options.config) as service:
            for name in names:
                results[name] = compare(name, service, options, console)


def tell_all(options: argparse.Namespace, results: dict[str, Result], console: Console) -> None:
    show(results, console)
    if options.json:
        store(as_json(results, ["scripts/bench", *sys.argv[1:]]), options.json)
    if options.chart:
        draw(results, options.chart)


def service_for(serves: ours.Change | None, config: Path) -> AbstractContextManager[ours.Run | None]:
    return ours.service(config, f"service-{serves.__name__}", serves) if serves else nullcontext()


def compare(name: str, service: ours.Run | None, options: argparse.Namespace, console: Console) -> Result:
    load = Load(options.clients, options.duration, options.warmup)
    url, pid = (service.url, service.pid) if service else ("", 0)
    with ExitStack() as peers, console.status(name) as status:

        def tell(what: str) -> None:
            line = f"{name}, {what}"
            status.update(line) if console.is_terminal else console.print(line)

        tell("starting what it is compared with")
        stage = Stage(options.config, url, pid, options.pictures, load, options.requests, peers)
        comparison = COMPARISONS[name]
        return contest(comparison.contenders(stage), comparison.rounds or options.rounds, tell)


def main(arguments: list[str] | None) -> None:
    for signum in (signal.SIGTERM, signal.SIGHUP):  # what was started ends as with Ctrl-C
        signal.signal(signum, lambda signum, _: sys.exit(128 + signum))
    end_with(run, parse(arguments))

"""The command line of `scripts/bench`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from serve_app.clients.errors import unreachable
from serve_app.clients.pictures import read_pictures
from serve_app.errors import InvalidRequestError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.arguments import FAILED, Defaults, Parser, end_with, list_of, number
from serve_app.tools.bench.report import as_json, draw, open_console, show, store
from serve_app.tools.bench.tracks import Row, Service, Target, differences, measure

ALIASES = {"D_streaming": "D1", "D_balanced": "D2", "D_batch": "D3"}  # the names that went before


def parse(description: str, arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        description=description,
        epilog="`bench ratio --help` is about the service against what it replaces",
        formatter_class=Defaults,
    )
    add = parser.add_argument
    add("--track", default="all", help="A, B, C, D1, D2, D3, several with commas, or all; also D_batch and the like")
    add("--size", default="nano", help="of the models")
    add("--clients", type=list_of(number(int, 1)), default=[16], metavar="N,…", help="closed loop: that many at once")
    add(
        "--rate",
        type=list_of(number(float, 0.001)),
        metavar="R,…",
        help="open loop: requests a second (Poisson)",
    )
    add("--duration", type=number(float, 0.1), default=20.0, metavar="S", help="seconds that are measured, for each")
    add("--warmup", type=number(float, 0), default=3.0, metavar="S", help="seconds before them, for each")
    add("--rounds", type=number(int, 1), default=1, metavar="N", help="measure all of it so often, one after the other")
    add("--pictures", type=Path, default=PROJECT_ROOT / "docs" / "shapes.jpg", help="a picture, or a folder of them")
    add("--url", default="http://localhost:8000", help="the service")
    add("--json", "--output", type=Path, metavar="FILE", help="write the numbers, with the machine they are from")
    add("--chart", type=Path, metavar="FILE", help="draw them (PNG)")
    return parser.parse_args(arguments)


def chosen(service: Service, names: str, size: str) -> list[Target]:
    """In the ladder's order."""
    there = [target for target in service.targets() if target.size == size]
    if not there:
        raise InvalidRequestError(f"--size: there is no track of size {size}")
    if names == "all":
        wanted = {target.track for target in there}
    else:
        wanted = {ALIASES.get(name.strip(), name.strip()) for name in names.split(",")}
    if unknown := wanted - {target.track for target in there}:
        known = ", ".join(target.track for target in there)
        raise InvalidRequestError(f"--track: no {', '.join(sorted(unknown))} of size {size}; there is: {known}")
    return [target for target in there if target.track in wanted]


def check_fidelity(service: Service, targets: Sequence[Target], picture: bytes, console: Console) -> bool:
    """Whether all see the same: a ladder of different answers would compare nothing."""
    first, *others = targets
    expected = service.detect(first.path, picture)
    same = True
    for target in others:
        if told := differences(expected, service.detect(target.path, picture)):
            same = False
            console.print(f"track {target.track} differs from track {first.track}: {'; '.join(told)}")
    if same and others:
        console.print(f"{len(expected)} detections, equal on all {len(targets)} tracks")
    return same


def measure_all(
    service: Service, options: argparse.Namespace, targets: Sequence[Target], console: Console
) -> list[Row]:
    pictures = read_pictures(options.pictures)
    loads = [(1, rate) for rate in options.rate] if options.rate else [(clients, None) for clients in options.clients]
    plan = [(target, *load) for _ in range(options.rounds) for load in loads for target in targets]
    rows = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=len(plan))
        for target, clients, rate in plan:
            progress.update(task, description=f"track {target.track}")
            rows.append(measure(service, target, pictures, clients, rate, options.duration, options.warmup))
            progress.advance(task)
    return rows


def run(options: argparse.Namespace) -> int:
    console = open_console()
    service = Service(options.url)
    try:
        targets = chosen(service, options.track, options.size)
        same = check_fidelity(service, targets, read_pictures(options.pictures)[0], console)
        rows = measure_all(service, options, targets, console)
    except httpx.HTTPError as problem:
        raise unreachable(options.url, problem) from None
    show(rows, console)
    if options.json:
        store(as_json(rows, ["scripts/bench", *sys.argv[1:]]), options.json)
    if options.chart:
        draw(rows, options.chart)
    answered = all(row.outcome.took_ms and not row.outcome.errors for row in rows)
    return 0 if same and answered else FAILED


def main(description: str, arguments: list[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["ratio"]:
        from serve_app.tools.bench.ratio.cli import main as ratio  # its peers' clients take a second to import

        ratio(given[1:])
    else:
        end_with(run, parse(description, given))

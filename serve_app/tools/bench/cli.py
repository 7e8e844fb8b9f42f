"""The command line of `scripts/bench`."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import httpx
from rich.console import Console

from serve_app.clients.errors import unreachable
from serve_app.clients.pictures import read_pictures
from serve_app.errors import InvalidRequestError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.arguments import FAILED, Defaults, Parser, end_with, list_of, number
from serve_app.tools.bench.detections import differences
from serve_app.tools.bench.load import Load
from serve_app.tools.bench.report import open_console, write_json
from serve_app.tools.bench.tracks import Service, Track, TrackResult, draw, show

# Imported when asked for, as that takes a second.
OTHERS = {"ratio": "ratio.cli", "cpu": "cpu", "scale": "scale"}
ALIASES = {"D_streaming": "D1", "D_balanced": "D2", "D_batch": "D3"}  # names of earlier systems


def parse(description: str, arguments: list[str] | None) -> argparse.Namespace:
    epilog = """`bench ratio --help` compares with other servers, `bench cpu --help` gives the processor time of
        requests, `bench scale --help` what more replicas give"""
    parser = Parser(description=description, epilog=epilog, formatter_class=Defaults)
    add = parser.add_argument
    add("--track", default="all", help="A, B, C, D1, D2, D3, several with commas, or all; also D_batch and the like")
    add("--size", default="nano", help="size of the models")
    add("--clients", type=list_of(number(int, 1)), default=[16], metavar="N,…", help="closed loop: clients at once")
    add("--rate", type=list_of(number(float, 0.001)), metavar="R,…", help="open loop: requests per second (Poisson)")
    add("--duration", type=number(float, 0.1), default=20.0, metavar="S", help="seconds of each measurement")
    add("--warmup", type=number(float, 0), default=3.0, metavar="S", help="seconds before each measurement")
    add("--rounds", type=number(int, 1), default=1, metavar="N", help="repeat all measurements N times")
    add("--pictures", type=Path, default=PROJECT_ROOT / "docs" / "shapes.jpg", help="a picture, or a folder of them")
    add("--url", default="http://localhost:8000", help="address of the service")
    add("--json", "--output", type=Path, metavar="FILE", help="write the numbers and the machine as JSON")
    add("--chart", type=Path, metavar="FILE", help="write a chart as PNG")
    return parser.parse_args(arguments)


def choose_tracks(service: Service, names: str, size: str) -> list[Track]:
    served = [track for track in service.tracks() if track.size == size]
    if not served:
        raise InvalidRequestError(f"--size: there is no track of size {size}")
    wanted = {ALIASES.get(name.strip(), name.strip()) for name in names.split(",")}
    if names == "all":
        wanted = {track.name for track in served}
    if unknown := wanted - {track.name for track in served}:
        known = ", ".join(track.name for track in served)
        raise InvalidRequestError(f"--track: no {', '.join(sorted(unknown))} of size {size}; available: {known}")
    return [track for track in served if track.name in wanted]


def compare_tracks(service: Service, tracks: Sequence[Track], picture: bytes, console: Console) -> bool:
    """Whether all tracks give equal detections: else their speeds can't be compared."""
    first, *others = tracks
    expected = service.detect(first.path, picture)
    equal = True
    for track in others:
        if problems := differences(expected, service.detect(track.path, picture)):
            equal = False
            console.print(f"track {track.name} differs from track {first.name}: {'; '.join(problems)}")
    if equal and others:
        console.print(f"{len(expected)} detections, equal on all {len(tracks)} tracks")
    return equal


def measure_all(
    service: Service, options: argparse.Namespace, tracks: Sequence[Track], console: Console
) -> list[TrackResult]:
    pictures = read_pictures(options.pictures)
    times = (options.duration, options.warmup)
    loads = [Load(1, *times, rate) for rate in options.rate or ()] or [Load(one, *times) for one in options.clients]
    plan = [(track, load) for _ in range(options.rounds) for load in loads for track in tracks]
    results = []
    with console.status("") as status:
        for done, (track, load) in enumerate(plan):
            status.update(f"track {track.name}, {load} ({done + 1} of {len(plan)})")
            results.append(service.measure(track, pictures, load))
    return results


def run(options: argparse.Namespace) -> int:
    console = open_console()
    service = Service(options.url)
    try:
        tracks = choose_tracks(service, options.track, options.size)
        equal = compare_tracks(service, tracks, read_pictures(options.pictures)[0], console)
        results = measure_all(service, options, tracks, console)
    except httpx.HTTPError as problem:
        raise unreachable(options.url, problem) from None
    show(results, console)
    if options.json:
        write_json(options.json, "bench", measured=[one.as_dict() for one in results])
    if options.chart:
        draw(results, options.chart)
    return FAILED if any(one.result.problems for one in results) or not equal else 0


def main(description: str, arguments: list[str] | None = None) -> None:
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in OTHERS:
        import_module(f"serve_app.tools.bench.{OTHERS[given[0]]}").main(given[1:])
    else:
        end_with(run, parse(description, given))

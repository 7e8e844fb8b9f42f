"""The command line of `scripts/detect`."""

import argparse
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from serve_app.clients.detection.detector import Detector
from serve_app.clients.detection.kserve import KserveDetector
from serve_app.clients.detection.rest import RestDetector
from serve_app.clients.pictures import picture_paths
from serve_app.errors import InvalidRequestError, NotFoundError, ServeAppError, UnavailableError
from serve_app.tools.arguments import FAILED, INTERRUPTED, Parser, end_with, number
from serve_app.tools.detect.storing import coco_json_of, json_of, store_drawn
from serve_app.tools.detect.summary import summary_of
from serve_app.types import PictureResult, Thresholds

URLS = {"rest": "http://localhost:8000", "kserve-http": "localhost:8000", "kserve-grpc": "localhost:8001"}


@dataclass(frozen=True, slots=True)
class Seen:
    """One picture of the folder, what came of it, and how long that took from here."""

    path: Path
    result: PictureResult | None
    problem: ServeAppError | None
    took_ms: float


def parse(description: str, arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("folder", type=Path, help="its pictures are sent: JPEG, PNG, WebP and BMP")
    add("--protocol", choices=tuple(URLS), default="rest", help="how to ask")
    add("--url", help=f"the service; without it {', '.join(f'{url} for {name}' for name, url in URLS.items())}")
    add("--track", default="nano", help="with rest: what stands behind /predict/, or a whole path")
    add("--model", default="yolo", help="with kserve-…: takes letterboxed squares or whole pictures")
    add("--labels", type=Path, metavar="FILE", help="with kserve-…: names of the classes, one a line")
    add("--conf", type=number(float, 0, 1), default=0.25, help="detections must be so sure")
    add("--iou", type=number(float, 0, 1), default=0.7, help="boxes that overlap more are one")
    add("--max-det", type=number(int, 1, 300), default=300, help="at most so many of a picture")
    add("--concurrency", type=number(int, 1, 512), default=1, metavar="N", help="how many are under way at once")
    add("--timeout", type=number(float, 0.001), default=60.0, metavar="S", help="seconds one may take")
    add("--results", type=Path, metavar="FOLDER", help="where annotated pictures go; FOLDER/results without it")
    add("--json", type=Path, metavar="FILE", help="write the detections")
    add("--coco", type=Path, metavar="FILE", help="write them in COCO's format")
    add("--quiet", action="store_true", help="no line for each picture")
    return parser.parse_args(arguments)


def detector_maker(options: argparse.Namespace) -> Callable[[], Detector]:
    url = options.url or URLS[options.protocol]
    if options.protocol == "rest":
        return partial(RestDetector, url, options.track, options.timeout)
    labels = options.labels.read_text(encoding="utf-8").splitlines() if options.labels else ()
    protocol = options.protocol.removeprefix("kserve-")
    return partial(KserveDetector, url, options.model, protocol, labels, options.timeout)


def detect_all(
    make: Callable[[], Detector], paths: Sequence[Path], thresholds: Thresholds, concurrency: int
) -> Iterator[Seen]:
    """In the folder's order, as soon as each is there; a connection for each thread."""
    own = threading.local()

    def one(path: Path) -> Seen:
        if not hasattr(own, "detector"):
            own.detector = make()
        began = time.perf_counter()
        result = problem = None
        try:
            result = own.detector.detect(path.read_bytes(), thresholds)
        except ServeAppError as refusal:
            problem = refusal
        return Seen(path, result, problem, (time.perf_counter() - began) * 1e3)

    pool = ThreadPoolExecutor(concurrency)
    try:
        yield from pool.map(one, paths)
    finally:
        pool.shutdown(cancel_futures=True)


def follow(seen: Iterator[Seen], total: int, results: Path, console: Console, quiet: bool) -> list[Seen]:
    """A line, and an annotated picture, for each; what was done stays when it is interrupted."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    done: list[Seen] = []
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("pictures", total=total)
        try:
            for one in seen:
                done.append(one)
                progress.advance(task)
                if one.result is not None:
                    store_drawn(one.path, one.result, results)
                if one.problem is not None or not quiet:
                    console.print(line_of(one))
        except KeyboardInterrupt:
            console.print("interrupted; what follows is of the pictures that were done")
    return done


def line_of(seen: Seen) -> str:
    if seen.result is None:
        return f"{seen.path.name}: ERROR: {seen.problem}"
    found = len(seen.result.detections)
    return f"{seen.path.name}: inference time: {seen.took_ms:.3f} ms, {found} detection{'s' if found != 1 else ''}"


def run(options: argparse.Namespace) -> int:
    if not options.folder.is_dir():
        raise InvalidRequestError(f"{options.folder} is no folder")
    paths = picture_paths(options.folder)
    results = options.results or options.folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    make = detector_maker(options)
    thresholds = Thresholds(options.conf, options.iou, options.max_det)
    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    with make() as detector:
        require_service(detector, paths[0], thresholds)
        began = time.perf_counter()
        seen = detect_all(make, paths, thresholds, options.concurrency)
        done = follow(seen, len(paths), results, console, options.quiet)
        wall_s = time.perf_counter() - began
        if detector.model:
            print(json.dumps(detector.statistics(), indent=2))
    good = {one.path: one.result for one in done if one.result is not None}
    for path, write in ((options.json, json_of), (options.coco, coco_json_of)):
        if path:
            path.write_text(write(good), encoding="utf-8")
    took_ms = [one.took_ms for one in done if one.result]
    print("\n".join(summary_of(took_ms, len(paths), list(good.values()), wall_s)))
    print(f"Annotated pictures are in {results}")
    if len(done) < len(paths):
        return INTERRUPTED
    return 0 if len(good) == len(paths) else FAILED


def require_service(detector: Detector, picture: Path, thresholds: Thresholds) -> None:
    """Fails early and once where nothing can be asked; it also opens the connection, which no time then includes."""
    try:
        detector.detect(picture.read_bytes(), thresholds)
    except ServeAppError as problem:
        if isinstance(problem, NotFoundError | UnavailableError):
            raise


def main(description: str, arguments: list[str] | None = None) -> None:
    end_with(run, parse(description, arguments))

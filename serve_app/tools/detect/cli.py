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
from serve_app.tools.arguments import FAILED, INTERRUPTED, Parser, api_key, end_with, number
from serve_app.tools.detect.results import as_coco, as_json, format_summary, write_annotated
from serve_app.types import PictureResult, Thresholds

URLS = {"rest": "http://localhost:8000", "kserve-http": "localhost:8000", "kserve-grpc": "localhost:8001"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One picture with its result or its error; the time includes the network."""

    path: Path
    result: PictureResult | None
    error: ServeAppError | None
    took_ms: float


def parse(description: str, arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("folder", type=Path, help="folder of pictures: JPEG, PNG, WebP and BMP")
    add("--protocol", choices=tuple(URLS), default="rest", help="protocol of the requests")
    add(
        "--url", help=f"address of the service; default: {', '.join(f'{url} for {name}' for name, url in URLS.items())}"
    )
    add("--track", default="nano", help="with rest: the last part of /predict/{track}, or a whole path")
    add("--model", default="yolo", help="with kserve-…: a model that takes letterboxed squares or whole pictures")
    add("--labels", type=Path, metavar="FILE", help="with kserve-…: class names, one per line")
    add("--conf", type=number(float, 0, 1), default=0.25, help="least confidence of a detection")
    add("--iou", type=number(float, 0, 1), default=0.7, help="boxes of one class that overlap more are merged")
    add("--max-det", type=number(int, 1, 300), default=300, help="most detections per picture")
    add("--concurrency", type=number(int, 1, 512), default=1, metavar="N", help="pictures in flight")
    add("--timeout", type=number(float, 0.001), default=60.0, metavar="S", help="seconds a picture may take")
    add("--results", type=Path, metavar="FOLDER", help="folder for annotated pictures; default: results in the folder")
    add("--json", type=Path, metavar="FILE", help="write the detections as JSON")
    add("--coco", type=Path, metavar="FILE", help="write the detections in COCO format")
    add("--quiet", action="store_true", help="print no line for each picture")
    return parser.parse_args(arguments)


def detector_factory(options: argparse.Namespace) -> Callable[[], Detector]:
    url = options.url or URLS[options.protocol]
    if options.protocol == "rest":
        return partial(RestDetector, url, options.track, options.timeout, api_key())
    labels = options.labels.read_text(encoding="utf-8").splitlines() if options.labels else ()
    protocol = options.protocol.removeprefix("kserve-")
    return partial(KserveDetector, url, options.model, protocol, labels, options.timeout, api_key())


def detect_all(
    connect: Callable[[], Detector], paths: Sequence[Path], thresholds: Thresholds, concurrency: int
) -> Iterator[Outcome]:
    """In the order of the folder, each as soon as it is done; every thread has its own connection."""
    own = threading.local()

    def detect(path: Path) -> Outcome:
        if not hasattr(own, "detector"):
            own.detector = connect()
        started = time.perf_counter()
        result = error = None
        try:
            result = own.detector.detect(path.read_bytes(), thresholds)
        except ServeAppError as problem:
            error = problem
        return Outcome(path, result, error, (time.perf_counter() - started) * 1e3)

    pool = ThreadPoolExecutor(concurrency)
    try:
        yield from pool.map(detect, paths)
    finally:
        pool.shutdown(cancel_futures=True)


def collect(outcomes: Iterator[Outcome], total: int, results: Path, console: Console, quiet: bool) -> list[Outcome]:
    """Print a line and write an annotated picture for each; an interruption keeps what was done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    done: list[Outcome] = []
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("pictures", total=total)
        try:
            for outcome in outcomes:
                done.append(outcome)
                progress.advance(task)
                if outcome.result is not None:
                    write_annotated(outcome.path, outcome.result, results)
                if outcome.error is not None or not quiet:
                    console.print(format_line(outcome))
        except KeyboardInterrupt:
            console.print("interrupted; the summary covers the pictures that were done")
    return done


def format_line(outcome: Outcome) -> str:
    if outcome.result is None:
        return f"{outcome.path.name}: ERROR: {outcome.error}"
    count = len(outcome.result.detections)
    plural = "" if count == 1 else "s"
    return f"{outcome.path.name}: inference time: {outcome.took_ms:.3f} ms, {count} detection{plural}"


def run(options: argparse.Namespace) -> int:
    if not options.folder.is_dir():
        raise InvalidRequestError(f"{options.folder} is not a folder")
    paths = picture_paths(options.folder)
    results = options.results or options.folder / "results"
    results.mkdir(parents=True, exist_ok=True)
    connect = detector_factory(options)
    thresholds = Thresholds(options.conf, options.iou, options.max_det)
    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    with connect() as detector:
        require_service(detector, paths[0], thresholds)
        started = time.perf_counter()
        outcomes = detect_all(connect, paths, thresholds, options.concurrency)
        done = collect(outcomes, len(paths), results, console, options.quiet)
        wall_s = time.perf_counter() - started
        if detector.model:
            print(json.dumps(detector.statistics(), indent=2))
    good = {outcome.path: outcome.result for outcome in done if outcome.result is not None}
    for path, serialize in ((options.json, as_json), (options.coco, as_coco)):
        if path:
            path.write_text(serialize(good), encoding="utf-8")
    took_ms = [outcome.took_ms for outcome in done if outcome.result]
    print(format_summary(took_ms, len(paths), list(good.values()), wall_s))
    print(f"Annotated pictures are in {results}")
    if len(done) < len(paths):
        return INTERRUPTED
    return 0 if len(good) == len(paths) else FAILED


def require_service(detector: Detector, picture: Path, thresholds: Thresholds) -> None:
    """Fail early and once if the service, track or model is missing; also opens the connection and warms up."""
    try:
        detector.detect(picture.read_bytes(), thresholds)
    except (NotFoundError, UnavailableError):
        raise
    except ServeAppError:
        pass  # only this picture is refused


def main(description: str, arguments: list[str] | None = None) -> None:
    end_with(run, parse(description, arguments))

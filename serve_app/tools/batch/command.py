"""The command line of `scripts/batch`."""

import argparse
import logging
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from serve_app.errors import EngineError
from serve_app.settings import Settings, read_config, settings_of
from serve_app.tools.arguments import FAILED, Parser, end_with, number
from serve_app.tools.batch.pictures import find_pictures
from serve_app.tools.batch.places import Place
from serve_app.tools.batch.plan import Plan, Shard
from serve_app.tools.batch.tables import write_coco
from serve_app.tools.batch.worker import Worker, find_track
from serve_app.types import Thresholds

SERVE_APP_ERROR = re.compile(r"serve_app\.errors\.\w+: (.*)")  # within the traceback that Ray raises
COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TextColumn("{task.fields[rate]}"),
    TimeElapsedColumn(),
    TimeRemainingColumn(),
)


def parse(description: str, arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("source", help="a folder, s3:// URL, Parquet table of paths or pictures, or text file with one picture a line")
    add("destination", help="folder or s3:// URL for the tables `detections` and `errors`; run again to continue")
    add("--config", type=Path, default=Path("configs/serve.yaml"), help="take detection and first Triton settings from")
    add("--track", default="nano_gpu_e2e_batch", help="track to run, as in /predict/TRACK")
    add("--conf", type=number(float, 0, 1), default=0.25, help="minimum confidence of a detection")
    add("--iou", type=number(float, 0, 1), default=0.7, help="drop the weaker of two boxes that overlap more than this")
    add("--actors", type=number(int, 1), default=1, metavar="N", help="number of engines; on a cluster, one per node")
    add("--cpus", type=number(float, 0), default=1.0, metavar="N", help="CPU cores that Ray reserves for each engine")
    add("--gpus", type=number(float, 0), default=0.0, metavar="N", help="GPUs that Ray reserves for each engine")
    add("--address", default="local", help="Ray cluster to use: auto or ray://HOST:PORT; local starts one")
    add("--shard", type=number(int, 1, 100_000), default=256, metavar="N", help="pictures stored together in one file")
    add("--coco", metavar="FILE", help="also write all detections to FILE in COCO format")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    settings = settings_of(read_config(options.config))
    find_track(options.track, settings.detection)
    pictures = find_pictures(options.source)
    plan = Plan(options.destination)
    chosen = {"track": options.track, "conf": options.conf, "iou": options.iou}
    shards = plan.update(pictures, chosen, int(options.shard))
    todo = plan.unfinished(shards)
    total, left = sum(len(shard.pictures) for shard in shards), sum(len(shard.pictures) for shard in todo)
    print(f"{total} pictures, {total - left} already done", flush=True)
    if todo:
        show_progress(detect(todo, settings, options), left)
    if options.coco:
        write_coco(plan.place, Place.of(options.coco))
    print(f"tables: {plan.place}/detections, {plan.place}/errors")
    return FAILED if plan.unfinished(shards) else 0


def detect(todo: list[Shard], settings: Settings, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield how many pictures of each shard succeeded and failed, from Ray Data's pool of workers."""
    import ray
    import ray.data

    dashboard = {"include_dashboard": False} if options.address == "local" else {}
    ray.init(options.address, log_to_driver=False, logging_level=logging.ERROR, **dashboard)
    ray.data.DataContext.get_current().enable_progress_bars = False  # they would count shards, not pictures
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised too
    rows = [{"number": shard.number, "pictures": list(shard.pictures)} for shard in todo]
    thresholds = Thresholds(options.conf, options.iou)
    arguments = (settings.triton[0], settings.detection, options.track, thresholds, options.destination)
    data = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        Worker,
        fn_constructor_args=arguments,
        compute=ray.data.ActorPoolStrategy(size=min(int(options.actors), len(rows))),
        num_cpus=options.cpus,
        num_gpus=options.gpus or None,
    )
    try:
        yield from data.iter_rows()
    except ray.exceptions.RayError as problem:
        lines = SERVE_APP_ERROR.findall(str(problem)) or str(problem).strip().splitlines()
        raise EngineError(f"{lines[-1].strip()}; run the command again to continue") from None


def show_progress(done: Iterable[dict[str, Any]], total: int) -> None:
    """Show a progress bar on a terminal, a line per shard elsewhere, and the totals at the end."""
    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    began, found, failed = time.monotonic(), 0, 0
    with Progress(*COLUMNS, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("pictures", total=total, rate="starting engines")
        for row in done:
            found, failed = found + row["found"], failed + row["failed"]
            rate = (found + failed) / (time.monotonic() - began)
            progress.update(task, completed=found + failed, rate=f"{rate:.1f} pictures/s")
            if not console.is_terminal:
                console.print(f"{found + failed} of {total} pictures, {rate:.1f}/s")
    seconds = time.monotonic() - began
    console.print(f"{found} pictures detected, {failed} unreadable, in {seconds:.1f} s")


def main(description: str, arguments: list[str] | None = None) -> None:
    end_with(run, parse(description, arguments))

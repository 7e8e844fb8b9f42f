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
from serve_app.tools.batch.ledger import Ledger, Shard
from serve_app.tools.batch.places import Place, pictures_of
from serve_app.tools.batch.tables import write_coco
from serve_app.tools.batch.worker import Worker, find_track
from serve_app.types import Thresholds

OURS = re.compile(r"serve_app\.errors\.\w+: (.*)")  # among all that Ray tells of a failure
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
    add("source", help="a folder, s3://…, a Parquet table of paths or pictures, or a text file with a picture a line")
    add("destination", help="a folder or s3://… for the tables `detections` and `errors`; a second run goes on there")
    add("--config", type=Path, default=Path("configs/serve.yaml"), help="its detection settings and first deployment")
    add("--track", default="nano_gpu_e2e_batch", help="what stands behind /predict/ in the service")
    add("--conf", type=number(float, 0, 1), default=0.25, help="detections must be so sure")
    add("--iou", type=number(float, 0, 1), default=0.7, help="boxes that overlap more are one")
    add("--actors", type=number(int, 1), default=1, metavar="N", help="engines in the pool; on a cluster one a node")
    add("--cpus", type=number(float, 0), default=1.0, metavar="N", help="processor cores that Ray sets aside for each")
    add("--gpus", type=number(float, 0), default=0.0, metavar="N", help="GPUs that Ray sets aside for each")
    add("--address", default="local", help="of a Ray cluster whose nodes take part: auto, or ray://…; local starts one")
    add("--shard", type=number(int, 1, 100_000), default=256, metavar="N", help="pictures that are stored together")
    add("--coco", metavar="FILE", help="at the end, write all detections in COCO's format")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    settings = settings_of(read_config(options.config))
    find_track(options.track, settings.detection)
    pictures = pictures_of(options.source)
    ledger = Ledger(options.destination)
    how = {"track": options.track, "conf": options.conf, "iou": options.iou}
    shards = ledger.plan(pictures, how, int(options.shard))
    todo = ledger.open(shards)
    total, left = sum(len(shard.pictures) for shard in shards), sum(len(shard.pictures) for shard in todo)
    print(f"{total} pictures, {total - left} of them done before", flush=True)
    if todo:
        follow(detect(todo, settings, options), left)
    if options.coco:
        write_coco(ledger.place, Place.of(options.coco))
    print(f"tables: {ledger.place}/detections, {ledger.place}/errors")
    return FAILED if ledger.open(shards) else 0


def detect(todo: list[Shard], settings: Settings, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of what was done, as Ray Data's pool of engines gets it done."""
    import ray
    import ray.data

    dashboard = {"include_dashboard": False} if options.address == "local" else {}
    ray.init(options.address, log_to_driver=False, logging_level=logging.ERROR, **dashboard)
    ray.data.DataContext.get_current().enable_progress_bars = False  # they count shards
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it calls errors is raised as well
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
        told = OURS.findall(str(problem)) or str(problem).strip().splitlines()
        raise EngineError(f"{told[-1].strip()}; a second run goes on from here") from None


def follow(done: Iterable[dict[str, Any]], total: int) -> None:
    """A bar where a person looks at a terminal, and the sums at the end."""
    console = Console(markup=False, highlight=False, emoji=False, soft_wrap=True)
    began, found, failed = time.monotonic(), 0, 0
    with Progress(*COLUMNS, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("pictures", total=total, rate="the engines start")
        for row in done:
            found, failed = found + row["found"], failed + row["failed"]
            rate = (found + failed) / (time.monotonic() - began)
            progress.update(task, completed=found + failed, rate=f"{rate:.1f} pictures/s")
            if not console.is_terminal:
                console.print(f"{found + failed} of {total} pictures, {rate:.1f}/s")
    seconds = time.monotonic() - began
    console.print(f"{found} pictures with their detections, {failed} that can't be read, in {seconds:.1f} s")


def main(description: str, arguments: list[str] | None = None) -> None:
    end_with(run, parse(description, arguments))

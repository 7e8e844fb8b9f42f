"""The command line of `scripts/models`."""

import argparse
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from types import FrameType

from serve_app.errors import InvalidRequestError
from serve_app.tools.arguments import Parser, end_with, number
from serve_app.tools.models.catalog import Catalog
from serve_app.tools.models.history import list_history, list_models, prune, use
from serve_app.tools.models.pull import Following, Puller
from serve_app.tools.models.push import push
from serve_app.tools.models.store import BucketUrl, Store

SHOW_CURSOR = "\x1b[?25h"


def parse(description: str, arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=description)
    commands = parser.add_subparsers(dest="command", required=True, metavar="push | pull | ls | use | prune")
    add = commands.add_parser("push", help="upload what is missing of a folder, then make it current").add_argument
    add("folder", type=Path, help="a Triton model repository, or any other folder")
    add("url", type=bucket_url, help="s3://BUCKET/PREFIX")
    add("--dry-run", action="store_true", help="say what would be uploaded, and write nothing")
    add("--force", action="store_true", help="upload also what is there, as when an object is corrupt")
    add = commands.add_parser("pull", help="bring what is current into a folder, as FOLDER/current").add_argument
    add("url", type=bucket_url, help="s3://BUCKET/PREFIX")
    add("folder", type=Path, help="is written to; FOLDER/current is what to serve")
    add("--follow", action="store_true", help="go on, and bring each later push")
    add(
        "--every",
        type=number(float, 0.1),
        default=15.0,
        metavar="S",
        help="seconds between looks; default: %(default)s",
    )
    add("--wait", action="store_true", help="wait for a first push where nothing has been pushed yet")
    add = commands.add_parser("ls", help="what is current: models, versions, sizes, when it was pushed").add_argument
    add("url", type=bucket_url, help="s3://BUCKET/PREFIX")
    add("--history", action="store_true", help="every manifest that `use` can go back to")
    add = commands.add_parser("use", help="make an older manifest current again").add_argument
    add("url", type=bucket_url, help="s3://BUCKET/PREFIX")
    add("digest", help="as `ls --history` gives it; its start is enough")
    add = commands.add_parser("prune", help="remove old manifests, and the objects that only they name").add_argument
    add("url", type=bucket_url, help="s3://BUCKET/PREFIX")
    add("--keep", type=number(int, 1), required=True, metavar="N", help="the newest N stay, and the current one")
    add(
        "--spare",
        type=number(float, 0),
        default=60.0,
        metavar="MINUTES",
        help="younger objects stay, since a push may need them; default: %(default)s",
    )
    add("--dry-run", action="store_true", help="say what would be removed, and remove nothing")
    return parser.parse_args(arguments)


def bucket_url(text: str) -> BucketUrl:
    try:
        return BucketUrl.parse(text)
    except InvalidRequestError as problem:
        raise argparse.ArgumentTypeError(problem.message) from None


def run(options: argparse.Namespace) -> int:
    catalog = Catalog(Store(options.url))
    if options.command == "push":
        push(options.folder, catalog, dry_run=options.dry_run, force=options.force)
    elif options.command == "pull":
        puller = Puller(catalog, options.folder, Following(options.every, options.wait))
        puller.follow() if options.follow else puller.once()
    elif options.command == "ls":
        list_history(catalog) if options.history else list_models(catalog)
    elif options.command == "use":
        use(catalog, options.digest)
    else:
        prune(catalog, int(options.keep), timedelta(minutes=options.spare), dry_run=options.dry_run)
    return 0


def end_at_once(signal_number: int, _frame: FrameType | None) -> None:
    """What is under way goes on from there next time, and its threads would keep the process for a minute."""
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), SHOW_CURSOR.encode())  # which a bar had hidden
    os._exit(128 + signal_number)


def main(description: str, arguments: list[str] | None = None) -> None:
    options = parse(description, arguments)
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, end_at_once)
    end_with(run, options)

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
from serve_app.tools.models.bucket import Bucket, BucketUrl
from serve_app.tools.models.history import list_history, list_models, prune, use
from serve_app.tools.models.pull import Puller
from serve_app.tools.models.push import push
from serve_app.tools.models.repository import Repository

SHOW_CURSOR = "\x1b[?25h"


def parse(description: str, arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=description)
    commands = parser.add_subparsers(dest="command", required=True, metavar="push | pull | ls | use | prune")
    url = Parser(add_help=False)
    url.add_argument("url", type=bucket_url, help="s3://BUCKET/PREFIX")

    add = commands.add_parser("push", help="upload what is new in a folder, then make it current").add_argument
    add("folder", type=Path, help="a Triton model repository, or any other folder")
    add("url", type=bucket_url, help="s3://BUCKET/PREFIX")
    add("--dry-run", action="store_true", help="show what would be uploaded, write nothing")
    add("--force", action="store_true", help="upload everything, for example to replace a corrupt object")

    add = commands.add_parser("pull", parents=[url], help="download what is current to FOLDER/current").add_argument
    add("folder", type=Path, help="folder to write to; serve FOLDER/current")
    add("--follow", action="store_true", help="keep running, and pull every later push")
    seconds = number(float, 0.1)
    add("--every", type=seconds, default=15.0, metavar="S", help="seconds between checks (default: %(default)s)")
    add("--wait", action="store_true", help="wait for the first push if nothing has been pushed yet")

    add = commands.add_parser("ls", parents=[url], help="list the current models, versions and sizes").add_argument
    add("--history", action="store_true", help="list every push that `use` can make current")

    add = commands.add_parser("use", parents=[url], help="make an older push current again").add_argument
    add("digest", help="as `ls --history` prints it; its first characters are enough")

    add = commands.add_parser("prune", parents=[url], help="remove old pushes and their objects").add_argument
    add("--keep", type=number(int, 1), required=True, metavar="N", help="keep the newest N pushes and the current one")
    minutes = "keep younger objects, because a running push may need them (default: %(default)s)"
    add("--spare", type=number(float, 0), default=60.0, metavar="MINUTES", help=minutes)
    add("--dry-run", action="store_true", help="show what would be removed, remove nothing")
    return parser.parse_args(arguments)


def bucket_url(text: str) -> BucketUrl:
    try:
        return BucketUrl.parse(text)
    except InvalidRequestError as problem:
        raise argparse.ArgumentTypeError(problem.message) from None


def run(options: argparse.Namespace) -> int:
    repository = Repository(Bucket(options.url))
    if options.command == "push":
        push(options.folder, repository, dry_run=options.dry_run, force=options.force)
    elif options.command == "pull":
        Puller(repository, options.folder, options.every, options.wait).pull(options.follow)
    elif options.command == "ls":
        list_history(repository) if options.history else list_models(repository)
    elif options.command == "use":
        use(repository, options.digest)
    else:
        prune(repository, int(options.keep), timedelta(minutes=options.spare), dry_run=options.dry_run)
    return 0


def exit_at_once(signal_number: int, _frame: FrameType | None) -> None:
    """Threads in a transfer would keep the process for up to a minute; the next run resumes it anyway."""
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), SHOW_CURSOR.encode())  # a progress bar hides it
    os._exit(128 + signal_number)


def main(description: str, arguments: list[str] | None = None) -> None:
    options = parse(description, arguments)
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, exit_at_once)
    end_with(run, options)

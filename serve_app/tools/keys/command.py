"""The command line of `scripts/keys`."""

import argparse
import json
import secrets
import sys
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from serve_app.errors import InvalidRequestError, near_miss
from serve_app.keys.file import SCOPES, Key, digest_of
from serve_app.settings import mistakes
from serve_app.tools.arguments import Parser, end_with, list_of, number
from serve_app.tools.keys.editing import changed_keys, known_keys

PREFIX = "sa-"
LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")


def parse(description: str, arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(description=description)
    file = Parser(add_help=False)
    file.add_argument("--file", type=Path, default=Path("keys.yaml"), help="the keys file (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="create | list | revoke")

    add = commands.add_parser("create", parents=[file], help="add a key and print it, this once").add_argument
    add("name", help="whose it is; metrics and messages show it")
    names = list_of(str)
    add("--scopes", type=names, default=["infer", "llm"], help=f"of {', '.join(SCOPES)} (default: infer,llm)")
    add("--models", type=names, default=["*"], metavar="A,B", help="models or patterns such as yolo_* (default: all)")
    count = number(int, 1)
    add("--requests-per-minute", type=count, metavar="N", help="default: no limit")
    add("--tokens-per-minute", type=count, metavar="N", help="of language models, prompts included; default: no limit")
    add("--concurrent-requests", type=count, metavar="N", help="default: no limit")

    add = commands.add_parser("list", parents=[file], help="show the keys' names, scopes and limits").add_argument
    add("--json", action="store_true", help="as JSON")

    add = commands.add_parser(
        "revoke", parents=[file], help="remove a key; routers refuse it within seconds"
    ).add_argument
    add("name")
    return parser.parse_args(arguments)


def create(options: argparse.Namespace) -> None:
    value = PREFIX + secrets.token_urlsafe(32)
    limits = {name: limit for name in LIMITS if (limit := getattr(options, name))}
    try:
        key = Key(name=options.name, sha256=digest_of(value), scopes=options.scopes, models=options.models, **limits)
    except ValidationError as problem:
        raise InvalidRequestError(mistakes(problem.errors(include_input=False), "the key")) from None
    with changed_keys(options.file) as keys:
        if any(one.name == key.name for one in keys):
            raise InvalidRequestError(f"{options.file} has a key named {key.name!r} already; revoke it first")
        keys.append(key)
    print(f"Added {key.name!r} to {options.file}, which keeps its hash; the key is shown this once:", file=sys.stderr)
    print(value)


def show(options: argparse.Namespace) -> None:
    keys = known_keys(options.file)
    if options.json:
        print(json.dumps([key.model_dump(mode="json", exclude={"sha256"}) for key in keys], indent=2))
        return
    table = Table("name", "scopes", "models", "requests/min", "tokens/min", "at once", box=None, pad_edge=False)
    for key in keys:
        limits = [str(getattr(key, name) or "–") for name in LIMITS]
        table.add_row(key.name, ", ".join(key.scopes), ", ".join(key.models), *limits)
    Console().print(table if keys else f"{options.file} has no keys")


def revoke(options: argparse.Namespace) -> None:
    with changed_keys(options.file) as keys:
        names = [key.name for key in keys]
        if options.name not in names:
            hint = near_miss(options.name, names, f"known: {', '.join(names) or 'none'}")
            raise InvalidRequestError(f"{options.file} has no key named {options.name!r}{hint}")
        del keys[names.index(options.name)]
    print(f"Revoked {options.name!r}; routers that read {options.file} refuse it within seconds", file=sys.stderr)


def run(options: argparse.Namespace) -> int:
    {"create": create, "list": show, "revoke": revoke}[options.command](options)
    return 0


def main(description: str | None, arguments: list[str] | None = None) -> None:
    end_with(run, parse(description or "", arguments))

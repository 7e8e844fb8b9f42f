"""Command-line arguments of the tools: parsers for values, one-line errors, and exit statuses."""

import argparse
import math
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from serve_app.errors import InvalidRequestError, ServeAppError

Value = TypeVar("Value")
ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+):(\d{1,5})", re.ASCII)
PORTS = range(1, 65536)
FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without argparse's usage."""
        self.exit(WRONG_USAGE, f"error: {message}\n")


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        """Without "(default: None)"."""
        return action.help if action.default is None else super()._get_help_string(action)


def number(kind: Callable[[str], float], least: float, most: float = math.inf) -> Callable[[str], float]:
    """A parser for numbers from `least` to `most`."""

    def read(text: str) -> float:
        value = kind(text)
        if not least <= value <= most or math.isinf(value):
            limits = f"at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
            raise argparse.ArgumentTypeError(f"{text} is not {limits}")
        return value

    read.__name__ = kind.__name__  # argparse prints it: "invalid int value: 'x'"
    return read


def list_of(kind: Callable[[str], Value]) -> Callable[[str], list[Value]]:
    """A parser for values separated by commas."""

    def read(text: str) -> list[Value]:
        return [kind(part) for part in text.split(",")]

    read.__name__ = f"list of {getattr(kind, '__name__', 'number')}"
    return read


def address(text: str) -> str:
    found = ADDRESS.fullmatch(text)
    if not found or int(found[2]) not in PORTS:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, as in localhost:8001")
    return text


def api_key() -> str:
    """From the environment, as an argument would be seen in the list of processes; "" where the service needs none."""
    return os.environ.get("SERVE_APP_KEY", "")


def end_with(run: Callable[[argparse.Namespace], int], options: argparse.Namespace) -> NoReturn:
    """Run a command and exit with its status; an expected error is printed in one line."""
    try:
        sys.exit(run(options))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except InvalidRequestError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(WRONG_USAGE)
    except (ServeAppError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(FAILED)

"""Every call that an installation makes, to AWS and to other programs: told, then made, or told only."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from serve_app.errors import ConfigurationError, ForbiddenError, UnavailableError

LAST_WORDS = 5
Answer = dict[str, Any]


class Calls:
    """`ask` reads and `change` writes; in a rehearsal both are printed and neither is made."""

    rehearsal = False
    poll_s = 10.0

    def __init__(self, session: boto3.Session, say: Callable[[str], None]) -> None:
        self.session = session
        self.say = say
        self._clients: dict[str, Any] = {}

    def ask(self, service: str, operation: str, absent: Sequence[str] = (), **parameters: Any) -> Answer | None:
        """None where AWS answers one of the codes in `absent`: there is no such thing."""
        return self._call(service, operation, absent, parameters)

    def ask_all(self, service: str, operation: str, key: str, **parameters: Any) -> list[Any]:
        """What all pages hold under `key`."""
        try:
            pages = self._client(service).get_paginator(operation).paginate(**parameters)
            return [item for page in pages for item in page.get(key) or []]
        except (ClientError, BotoCoreError) as problem:
            raise _translated(service, operation, problem) from None

    def change(self, service: str, operation: str, done: Sequence[str] = (), **parameters: Any) -> Answer:
        """`done` are the codes that say it is so already."""
        self.say(f"aws {service} {operation} {_shown(parameters)}".rstrip())
        return self._call(service, operation, done, parameters) or {}

    def run(self, argv: Sequence[str], given: str | None = None, told: str = "") -> None:
        """Another program, its output shown as it comes; `given` is its standard input, which isn't shown."""
        self.say(f"run {' '.join(argv)}{f' < {told}' if told else ''}")
        last = self._follow(argv, given)
        if last is not None:
            raise ConfigurationError(f"`{' '.join(argv[:3])} …` failed: {last}")

    def answer_of(self, argv: Sequence[str]) -> str | None:
        """What a program prints; None where it isn't there or fails."""
        try:
            ran = subprocess.run(list(argv), capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return ran.stdout if ran.returncode == 0 else None

    def wait(self, what: str, over: Callable[[], bool], timeout_s: float) -> None:
        if over():
            return
        self.say(f"wait until {what}")
        deadline = time.monotonic() + timeout_s
        while not over():
            if time.monotonic() > deadline:
                raise UnavailableError(f"waited {timeout_s:g} s until {what}, and it isn't so")
            time.sleep(self.poll_s)

    def _follow(self, argv: Sequence[str], given: str | None) -> str | None:
        """What a failed program said last: of its errors, else of its output; None where it succeeded."""
        pipe = subprocess.PIPE
        try:
            child = subprocess.Popen(
                list(argv),
                stdin=pipe if given is not None else None,
                stdout=pipe,
                stderr=pipe,
                text=True,
                errors="replace",
            )
        except OSError as problem:
            return problem.strerror or str(problem)
        output: deque[str] = deque(maxlen=LAST_WORDS)
        problems: deque[str] = deque(maxlen=1)
        with child:
            reader = threading.Thread(target=_pass_on, args=(child.stdout, sys.stdout, output))
            reader.start()
            if child.stdin and given is not None:
                with contextlib.suppress(BrokenPipeError):  # it ended before it read all: its errors tell why
                    child.stdin.write(given)
                    child.stdin.close()
            _pass_on(child.stderr, sys.stderr, problems)
            reader.join()
        return None if child.returncode == 0 else "\n".join(problems or output) or "it said nothing"

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self.session.client(service)
        return self._clients[service]

    def _call(self, service: str, operation: str, expected: Sequence[str], parameters: Answer) -> Answer | None:
        try:
            answer: Answer = getattr(self._client(service), operation)(**parameters)
        except ClientError as problem:
            if problem.response["Error"]["Code"] in expected:
                return None
            raise _translated(service, operation, problem) from None
        except BotoCoreError as problem:
            raise _translated(service, operation, problem) from None
        return answer


class Rehearsal(Calls):
    """Tells every call as if nothing were there yet, and makes none: it needs no account, tool or cluster."""

    rehearsal = True

    def ask(self, service: str, operation: str, absent: Sequence[str] = (), **parameters: Any) -> Answer | None:
        self.say(f"ask {service} {operation} {_shown(parameters)}".rstrip())
        return None

    def ask_all(self, service: str, operation: str, key: str, **parameters: Any) -> list[Any]:
        self.ask(service, operation, **parameters)
        return []

    def answer_of(self, argv: Sequence[str]) -> str | None:
        self.say(f"ask {' '.join(argv)}")
        return None

    def wait(self, what: str, over: Callable[[], bool], timeout_s: float) -> None:
        self.say(f"wait until {what}, {timeout_s:g} s at most")

    def _follow(self, argv: Sequence[str], given: str | None) -> str | None:
        return None

    def _call(self, service: str, operation: str, expected: Sequence[str], parameters: Answer) -> Answer | None:
        return None


def _pass_on(lines: Iterable[str] | None, shown: TextIO, last: deque[str]) -> None:
    for line in lines or ():
        print(line, end="", file=shown, flush=True)
        if line.strip():
            last.append(line.strip())


def _shown(parameters: Answer) -> str:
    return " ".join(f"{key}={_value(value)}" for key, value in parameters.items())


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if "\n" in text:
        return f"<{len(text.splitlines())} lines>"
    return text


def _translated(service: str, operation: str, problem: Exception) -> Exception:
    what = f"AWS {service} {operation}"
    if not isinstance(problem, ClientError):
        return UnavailableError(f"{what}: {problem}; are there credentials (aws sso login), and is the region right?")
    error = problem.response["Error"]
    message = f"{what}: {error['Code']}: {error.get('Message', '')}".rstrip(": ")
    if error["Code"] in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"):
        return ForbiddenError(f"{message}; the credentials in use lack this right: ask for it, or take other ones")
    if error["Code"] in ("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "RequestExpired"):
        return ForbiddenError(f"{message}; log in again (aws sso login)")
    return ConfigurationError(message)


def private_file(path: Path, text: str) -> None:
    """Written for its owner's eyes, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    beside.replace(path)

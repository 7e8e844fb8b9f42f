"""Calls to AWS and to other programs during an installation: each change is printed before it is made."""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TextIO

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from serve_app.errors import ConfigurationError, ForbiddenError, UnavailableError

LINES_QUOTED = 5  # of a failed program's output
OUTPUT_TIMEOUT_S = 60
DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403")
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "RequestExpired")
Answer = dict[str, Any]


class Runner:
    """`get` and `get_all` read from AWS, `change` writes to it; `run` and `output` start programs."""

    dry_run = False
    poll_s = 10.0

    def __init__(self, session: boto3.Session, say: Callable[[str], None]) -> None:
        self.session = session
        self.say = say
        self._clients: dict[str, Any] = {}

    def get(self, service: str, operation: str, absent: Sequence[str] = (), **parameters: Any) -> Answer | None:
        """None where AWS answers with one of the error codes in `absent`."""
        return self._call(service, operation, absent, parameters)

    def get_all(self, service: str, operation: str, key: str, **parameters: Any) -> list[Any]:
        """The items under `key` of every page."""
        try:
            pages = self._client(service).get_paginator(operation).paginate(**parameters)
            return [item for page in pages for item in page.get(key) or []]
        except (ClientError, BotoCoreError) as error:
            raise _translate(service, operation, error) from None

    def change(self, service: str, operation: str, ignored: Sequence[str] = (), **parameters: Any) -> Answer:
        """Error codes in `ignored` mean that the change was made before."""
        self.say(f"aws {service} {operation} {_format(parameters)}".rstrip())
        return self._call(service, operation, ignored, parameters) or {}

    def run(self, argv: Sequence[str], stdin: str | None = None, source: str = "") -> None:
        """Pass the program's output on as it comes; `stdin` is not printed, only its `source`."""
        self.say(f"run {' '.join(argv)}{f' < {source}' if source else ''}")
        failure = self._start(argv, stdin)
        if failure is not None:
            raise ConfigurationError(f"`{' '.join(argv[:3])} …` failed: {failure}")

    def output(self, argv: Sequence[str]) -> str | None:
        """None where the program is missing or fails."""
        try:
            done = subprocess.run(list(argv), capture_output=True, text=True, timeout=OUTPUT_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout if done.returncode == 0 else None

    def wait(self, goal: str, reached: Callable[[], bool], timeout_s: float) -> None:
        """`goal` completes "waiting until …"."""
        if reached():
            return
        self.say(f"waiting until {goal}")
        deadline = time.monotonic() + timeout_s
        while not reached():
            if time.monotonic() > deadline:
                raise UnavailableError(f"timed out after {timeout_s:g} s waiting until {goal}")
            time.sleep(self.poll_s)

    def _start(self, argv: Sequence[str], stdin: str | None) -> str | None:
        """None on success, else the last line of the program's errors, or the last lines of its output."""
        pipe = subprocess.PIPE
        source = pipe if stdin is not None else None
        try:
            child = subprocess.Popen(list(argv), stdin=source, stdout=pipe, stderr=pipe, text=True, errors="replace")
        except OSError as error:
            return error.strerror or str(error)
        output: deque[str] = deque(maxlen=LINES_QUOTED)
        errors: deque[str] = deque(maxlen=1)
        with child:
            reader = threading.Thread(target=_pass_on, args=(child.stdout, sys.stdout, output))
            reader.start()
            if child.stdin and stdin is not None:
                with contextlib.suppress(BrokenPipeError):  # it ended without reading: its errors say why
                    child.stdin.write(stdin)
                    child.stdin.close()
            _pass_on(child.stderr, sys.stderr, errors)
            reader.join()
        return None if child.returncode == 0 else "\n".join(errors or output) or f"exit status {child.returncode}"

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self.session.client(service)
        return self._clients[service]

    def _call(self, service: str, operation: str, expected: Sequence[str], parameters: Answer) -> Answer | None:
        try:
            answer: Answer = getattr(self._client(service), operation)(**parameters)
        except ClientError as error:
            if error.response["Error"]["Code"] in expected:
                return None
            raise _translate(service, operation, error) from None
        except BotoCoreError as error:
            raise _translate(service, operation, error) from None
        return answer


class DryRunner(Runner):
    """Prints every call of a first installation and makes none; needs no account, tool or cluster."""

    dry_run = True

    def get(self, service: str, operation: str, absent: Sequence[str] = (), **parameters: Any) -> Answer | None:
        self.say(f"get {service} {operation} {_format(parameters)}".rstrip())
        return None

    def get_all(self, service: str, operation: str, key: str, **parameters: Any) -> list[Any]:
        self.get(service, operation, **parameters)
        return []

    def output(self, argv: Sequence[str]) -> str | None:
        self.say(f"run {' '.join(argv)}")
        return None

    def wait(self, goal: str, reached: Callable[[], bool], timeout_s: float) -> None:
        self.say(f"wait up to {timeout_s:g} s until {goal}")

    def _start(self, argv: Sequence[str], stdin: str | None) -> str | None:
        return None

    def _call(self, service: str, operation: str, expected: Sequence[str], parameters: Answer) -> Answer | None:
        return None


def _pass_on(lines: Iterable[str] | None, target: TextIO, last: deque[str]) -> None:
    for line in lines or ():
        print(line, end="", file=target, flush=True)
        if line.strip():
            last.append(line.strip())


def _format(parameters: Answer) -> str:
    return " ".join(f"{key}={_format_value(value)}" for key, value in parameters.items())


def _format_value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return f"<{len(text.splitlines())} lines>" if "\n" in text else text


def _translate(service: str, operation: str, error: Exception) -> Exception:
    call = f"AWS {service} {operation}"
    if not isinstance(error, ClientError):
        return UnavailableError(f"{call}: {error}; check your credentials (aws sso login) and the region")
    code, text = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
    message = f"{call}: {code}: {text}".rstrip(": ")
    if code in DENIED:
        return ForbiddenError(f"{message}; your credentials don't allow this call: ask for the permission")
    if code in EXPIRED:
        return ForbiddenError(f"{message}; log in again (aws sso login)")
    return ConfigurationError(message)

"""Programs that start an embedded server in a process of their own, how they end, and what they may leave behind."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Run = Callable[[str], "subprocess.Popen[str]"]

LOAD = """
server = start(exit_timeout=1)
identity = server.load("identity")
ones = {"IN0": np.ones(4, np.float32)}
"""
STUCK = (
    LOAD
    + """
stuck = server.load("stuck")
responses = stuck.infer(inputs=ones, raise_on_error=False)
time.sleep(0.3)
"""
)
READY = 'say("READY")\ntime.sleep(60)'


def leftovers(pid: int) -> list[str]:
    """Regions and processes that carry the name of a server process; zombies have no command line."""
    mark = re.compile(rf"serve_app_triton_\d+_{pid}_")
    found = [name for name in os.listdir("/dev/shm") if mark.match(name)]
    return found + [command.replace("\0", " ") for _, command in commands() if mark.search(command)]


def commands() -> Iterator[tuple[int, str]]:
    """The process id and the command line of every process, its arguments ended by zero bytes."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield int(process.parent.name), process.read_bytes().decode(errors="replace")
        except OSError:
            continue


def wait_for_nothing(pid: int, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while leftovers(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert leftovers(pid) == []


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line == "READY\n":
            return
    pytest.fail("".join(lines))


def finish(process: subprocess.Popen[str], timeout_s: float = 60) -> str:
    output, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, output
    wait_for_nothing(process.pid)
    return output

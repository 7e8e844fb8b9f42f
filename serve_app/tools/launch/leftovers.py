"""Processes of a run that outlive it: found by a mark in their environment, and ended."""

import os
import signal
import time
from pathlib import Path

MARK = "SERVE_APP_RUN"
PATIENCE_S = 10.0


def processes_of(run: str) -> list[int]:
    """Process ids whose environment carries this run's mark; zombies have none."""
    needle = f"{MARK}={run}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if needle in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue  # it ended, or it isn't ours
    return found


def end_leftovers(run: str, patience_s: float = PATIENCE_S) -> int:
    """Wait for the run's processes to end, then kill what stays; returns how many had to be killed."""
    deadline = time.monotonic() + patience_s
    while (left := processes_of(run)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return len(left)

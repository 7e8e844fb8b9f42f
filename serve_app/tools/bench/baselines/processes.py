"""A server as a child process: started, waited for, and ended with all processes that it started."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from serve_app.errors import UnavailableError
from serve_app.settings import PROJECT_ROOT

LOGS = PROJECT_ROOT / "runs" / "bench"
START_TIMEOUT_S = 600.0
END_TIMEOUT_S = 90.0
LOG_LINES_SHOWN = 5
PORTS = range(
    20000, 29000
)  # below are Ray's workers, above the replicas of Serve and the kernel's outgoing connections


@contextmanager
def running(
    name: str, command: Sequence[str], ready: Callable[[], bool], environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Start a command, wait until it is ready, yield its process id, and end it with Ctrl-C."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = log_of(name)
    with log.open("w") as output:
        process = subprocess.Popen(
            list(command),
            cwd=PROJECT_ROOT,
            env=environment or current_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C at the terminal ends only the benchmark, which ends this
            preexec_fn=restore_interrupts,
        )
    try:
        _wait_until(ready, process, name, log)
        yield process.pid
    finally:
        # `scripts/serve` needs the second Ctrl-C to end processes in other sessions, which a kill would leave behind
        end(process, END_TIMEOUT_S, END_TIMEOUT_S / 3)


def restore_interrupts() -> None:
    """For children: a parent that a shell started in the background ignores SIGINT, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def exit_on_signals() -> None:
    """Exit on SIGTERM and SIGHUP as on Ctrl-C, so that `finally` blocks end the children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda signum, _: sys.exit(128 + signum))


def log_of(name: str) -> Path:
    return LOGS / f"{name}.log"


def current_environment() -> dict[str, str]:
    return dict(os.environ)


def _wait_until(ready: Callable[[], bool], process: "subprocess.Popen[bytes]", name: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(errors="replace").strip().splitlines()[-LOG_LINES_SHOWN:]
            raise UnavailableError(f"{name} did not start; {log} ends with:\n" + "\n".join(lines))
        time.sleep(0.2)


def end(process: "subprocess.Popen[bytes]", *timeouts_s: float) -> None:
    """Send Ctrl-C once per timeout, then kill the session."""
    try:
        for timeout_s in timeouts_s:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout_s)
    finally:
        with suppress(ProcessLookupError):  # the session has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("0.0.0.0", port))
            return port
    raise UnavailableError(f"no port from {PORTS.start} to {PORTS.stop - 1} is free")


def answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(url, timeout=5).status_code == 200
    return False

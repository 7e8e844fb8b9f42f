"""A server as a child process: started, waited for, and ended with whatever it started."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from serve_app.errors import UnavailableError
from serve_app.settings import PROJECT_ROOT

LOGS = PROJECT_ROOT / "runs" / "bench"
START_PATIENCE_S = 600.0
END_PATIENCE_S = 90.0
LINES_TOLD = 5
PORTS = range(20000, 29000)


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """From ready to its end, which is asked for by one Ctrl-C; gives its process id."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = log_of(name)
    with log.open("w") as output:
        process = subprocess.Popen(
            list(command),
            cwd=PROJECT_ROOT,
            env=environment or current_environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C at the terminal ends the comparison, and this in its turn
            preexec_fn=_heed_interrupts,
        )
    try:
        _wait_until(ready, process, name, log)
        yield process.pid
    finally:
        # the second Ctrl-C makes `scripts/serve` end what is in sessions of its own, which a kill would leave
        end(process, END_PATIENCE_S, END_PATIENCE_S / 3)


def _heed_interrupts() -> None:
    """A shell that starts the comparison in the background has it ignored, and children would go on doing so."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def log_of(name: str) -> Path:
    return LOGS / f"{name}.log"


def current_environment() -> dict[str, str]:
    return dict(os.environ)


def _wait_until(ready: Callable[[], bool], process: "subprocess.Popen[bytes]", name: str, log: Path) -> None:
    deadline = time.monotonic() + START_PATIENCE_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(errors="replace").strip().splitlines()[-LINES_TOLD:]
            raise UnavailableError(f"{name} did not start; {log} ends with:\n" + "\n".join(lines))
        time.sleep(0.2)


def end(process: "subprocess.Popen[bytes]", *patiences_s: float) -> None:
    """A Ctrl-C for each patience, then a kill of its session."""
    try:
        for patience_s in patiences_s:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(patience_s)
    finally:
        with suppress(ProcessLookupError):  # what it has left behind, or itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def free_port() -> int:
    """From where neither the kernel (outgoing connections), Ray (workers) nor Serve (replicas) takes one meanwhile."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("0.0.0.0", port))
            return port
    raise UnavailableError(f"no port from {PORTS.start} to {PORTS.stop - 1} is free")


def answers(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(url, timeout=5).status_code == 200
    return False

"""One run of `serve run`: starts it, reports when deployments are ready, and ends every process that it leaves."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import FrameType

from serve_app.tools.launch.status import Progress, read_progress

POLL_S = 1.0
EXIT_TIMEOUT_S = 10.0  # for processes that are left, until they are killed
RUN_VARIABLE = "SERVE_APP_RUN"  # marks every process of a run


def handle_stop_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    """Call this before child processes start: they would inherit an ignored SIGINT and never react to one.

    SIGHUP stays ignored under nohup, which is there to keep the service running.
    """
    signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGTERM, handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, handler)


class Run:
    """The child has a session of its own, so that a Ctrl-C in the terminal reaches it only once."""

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str],
        addresses: str,
        optional: Collection[str] = (),
        read: Callable[[Collection[str]], Progress] = read_progress,
        poll_s: float = POLL_S,
    ) -> None:
        """`optional` deployments may become ready later than the rest, or fail."""
        self._id = uuid.uuid4().hex
        self._optional = frozenset(optional)
        self._addresses = addresses
        self._read = read
        self._poll_s = poll_s
        self._started = time.monotonic()
        self._stopping = False
        handle_stop_signals(self._on_signal)
        self._child = subprocess.Popen(command, env={**environment, RUN_VARIABLE: self._id}, start_new_session=True)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """The first signal stops the service in order, the second one kills it."""
        if self._stopping:
            self._child.kill()
        self._stop()

    def _stop(self) -> None:
        if not self._stopping and self._child.poll() is None:
            self._stopping = True
            self._child.send_signal(signal.SIGINT)

    def wait(self) -> int:
        """Wait for the end of the service; returns the exit status."""
        try:
            failure = self._watch_start()
        except BaseException:  # Ray must not outlive this process
            self._stop()
            self._child.wait()
            kill_leftovers(self._id)
            raise
        if failure:
            self._stop()
        code = self._child.wait()
        killed = kill_leftovers(self._id)
        if killed:
            print(f"killed {killed} leftover processes", file=sys.stderr)
        if failure:
            print(f"error: {failure}", file=sys.stderr)
            return 1
        if not self._stopping:
            print(f"error: `serve run` exited unexpectedly with status {code}", file=sys.stderr)
            return code if code > 0 else 1
        return 0

    def _watch_start(self) -> str | None:
        """Report progress until all deployments are up; returns the reason if the start fails."""
        waiting: tuple[str, ...] = ()
        ready = False
        while self._child.poll() is None and not self._stopping:
            progress = self._read(self._optional)
            if progress.failure and not ready:  # once ready, Serve replaces what fails
                return progress.failure
            missing = tuple(name for name, state in progress.deployments if state != "HEALTHY")
            if progress.up and not ready:
                ready = True
                self._print(f"ready in {self._elapsed()}: {self._addresses} (press Ctrl-C to stop)")
            if ready and progress.deployments and not self._optional & set(missing) - set(progress.failed_optional):
                self._report_optional(progress.failed_optional)
                return None
            if missing and missing != waiting:
                waiting = missing
                self._print(f"waiting for {', '.join(missing)}")
            time.sleep(self._poll_s)
        return None

    def _report_optional(self, failed: Mapping[str, str]) -> None:
        for name, reason in failed.items():
            self._print(f"error: {name} failed to start, everything else is served: {reason}")
        if up := sorted(self._optional - set(failed)):
            self._print(f"ready in {self._elapsed()}: {', '.join(up)}")

    def _elapsed(self) -> str:
        return f"{time.monotonic() - self._started:.1f} s"

    def _print(self, line: str) -> None:
        print(line, flush=True)


def processes_of(run: str) -> list[int]:
    """Ids of the other processes whose environment marks them as this run's; a zombie has no environment."""
    entry = f"{RUN_VARIABLE}={run}".encode()
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            if entry in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue  # it has ended, or belongs to another user
    return found


def kill_leftovers(run: str, timeout_s: float = EXIT_TIMEOUT_S) -> int:
    """Wait for the run's processes to end, kill those that don't, and return their number."""
    deadline = time.monotonic() + timeout_s
    while (left := processes_of(run)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return len(left)

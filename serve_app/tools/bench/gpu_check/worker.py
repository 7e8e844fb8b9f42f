"""A task in a process of its own: its events arrive while it runs, and a crash ends only the task and frees the GPU."""

import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.bench.baselines.processes import current_environment, end, restore_interrupts

COMMAND = (sys.executable, "-c", f"from {__name__} import work; work()")
END_TIMEOUT_S = 60.0  # to unload models and to end their processes

Emit = Callable[[object], None]
Task = Callable[..., None]  # a module's function; its first argument is an Emit


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event of a task; `error` is None after a success."""

    error: str | None = None


def run_in_process(
    task: Task, *arguments: object, on_event: Emit, log: Path, environment: Mapping[str, str] | None = None
) -> str | None:
    """Run a task to its end; returns None, or why it failed. What the task prints goes to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env={**current_environment(), **(environment or {})},
            cwd=PROJECT_ROOT,
            start_new_session=True,  # Ctrl-C at the terminal ends only the check, which ends this
            preexec_fn=restore_interrupts,
        )
    try:
        last = _receive(process, (task, arguments), on_event)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT_S)
    finally:
        end(process, END_TIMEOUT_S)
    return last.error if last else f"{_describe_end(process.returncode)}; {log} ends with: {_last_line(log)}"


def _receive(process: "subprocess.Popen[bytes]", request: tuple[Task, tuple[object, ...]], emit: Emit) -> Ended | None:
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout:  # closed before the process is ended, so that it is not blocked by a full pipe
        with suppress(BrokenPipeError), process.stdin:
            pickle.dump(request, process.stdin)
        while True:
            try:
                event = pickle.load(process.stdout)
            except (EOFError, pickle.UnpicklingError):  # it has ended, perhaps in the middle of an event
                return None
            if isinstance(event, Ended):
                return event
            emit(event)


def _describe_end(code: int) -> str:
    if code >= 0:
        return f"its process exited with status {code}"
    killed = f"its process was ended by {signal.Signals(-code).name}"
    return killed + (", as happens when memory runs out" if -code == signal.SIGKILL else "")


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " ".join(lines[-1].split()) if lines else "nothing"


def work() -> None:
    """In the process: read the task from standard input and write its events to standard output."""
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print to the log, not into the events

    def emit(event: object) -> None:
        pickle.dump(event, stream)
        stream.flush()

    task: Task
    arguments: tuple[Any, ...]
    task, arguments = pickle.load(sys.stdin.buffer)
    try:
        task(emit, *arguments)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as problem:  # any failure is a result of the check
        traceback.print_exc()
        emit(Ended(" ".join(str(problem).split()) or type(problem).__name__))
        sys.exit(1)
    emit(Ended())

"""Work in a process of its own, which tells the check what it sees while it goes on."""

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
from serve_app.tools.bench.baselines.processes import current_environment, end

COMMAND = (sys.executable, "-m", "serve_app.tools.bench.gpu_check")
END_PATIENCE_S = 60.0  # unloading models and ending their processes takes some seconds

Tell = Callable[[object], None]
Work = Callable[..., None]  # of a Tell and what else it needs; a function of a module, since it goes by its name


@dataclass(frozen=True, slots=True)
class Ended:
    """The last word of a process: why its work failed, or nothing."""

    reason: str | None = None


def in_child(
    work: Work, *arguments: object, hear: Tell, log: Path, environment: Mapping[str, str] | None = None
) -> str | None:
    """Returns when the process has ended: None where all of the work is done, else why it isn't.

    What libraries print goes to the log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env={**current_environment(), **(environment or {})},
            cwd=PROJECT_ROOT,
            start_new_session=True,  # Ctrl-C at the terminal is for the check, which ends its children
        )
    try:
        last = _converse(process, (work, arguments), hear)
        with suppress(subprocess.TimeoutExpired):  # it is on its way out
            process.wait(END_PATIENCE_S)
    finally:
        end(process, END_PATIENCE_S)
    return last.reason if last else f"{_how_it_ended(process.returncode)}; {log} ends with: {_last_line(log)}"


def _converse(process: "subprocess.Popen[bytes]", asked: tuple[Work, tuple[object, ...]], hear: Tell) -> Ended | None:
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout:  # closed before the process is ended: what it still wants to tell doesn't hold it up
        with suppress(BrokenPipeError), process.stdin:
            pickle.dump(asked, process.stdin)
        while True:
            try:
                event = pickle.load(process.stdout)
            except (EOFError, pickle.UnpicklingError):  # it has ended, perhaps in the middle of a word
                return None
            if isinstance(event, Ended):
                return event
            hear(event)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"its process ended with status {code}"
    ended = f"its process was ended by {signal.Signals(-code).name}"
    return ended + (", which is what happens where memory runs out" if -code == signal.SIGKILL else "")


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " ".join(lines[-1].split()) if lines else "nothing"


def work_as_asked() -> None:
    """The other end: reads what to do, and writes what happens."""
    # A shell that starts the check in the background has it ignored, for children too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stream = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no event

    def tell(event: object) -> None:
        pickle.dump(event, stream)
        stream.flush()

    work: Work
    arguments: tuple[Any, ...]
    work, arguments = pickle.load(sys.stdin.buffer)
    try:
        work(tell, *arguments)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except Exception as problem:  # whatever it is, it is the answer
        traceback.print_exc()
        tell(Ended(" ".join(str(problem).split()) or type(problem).__name__))
        sys.exit(1)
    tell(Ended())

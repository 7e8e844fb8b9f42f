"""Runs builds in a child process, which ends with the process that waits for it.

The server's TensorRT libraries and the Python package's can't be loaded into one process, and a builder frees its GPU
memory only when its process ends.
"""

import importlib.util
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from serve_app.errors import ConfigurationError, ModelLoadError
from serve_app.triton.plans.builder import Profile
from serve_app.triton.plans.progress import Report

COMMAND = (sys.executable, "-m", "serve_app.triton.plans")
VERSION_TIMEOUT_S = 120


def find_tensorrt() -> str | None:
    """The version of TensorRT's Python package, None if it isn't installed.

    The package is imported in a child process: its distribution has several names and, in some images, no metadata, and
    metadata doesn't tell whether the libraries load.
    """
    if importlib.util.find_spec("tensorrt") is None:
        return None
    try:
        answer = subprocess.run(
            [*COMMAND, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=VERSION_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"TensorRT's Python package didn't load within {VERSION_TIMEOUT_S} s") from None
    if answer.returncode:
        raise ConfigurationError(f"{_last_line(answer.stderr) or 'TensorRT crashes'}; repair or uninstall the package")
    return _last_line(answer.stdout)


def build_in_child(graph: Path, target: Path, profile: Profile, timing_cache: Path, name: str, report: Report) -> None:
    """Return when `target` is written. On any error the child process has ended and `target` doesn't exist."""
    command = [
        *COMMAND, str(graph), str(target), "--name", name, "--timing-cache", str(timing_cache),
        "--min", str(profile.min), "--opt", str(profile.opt), "--max", str(profile.max),
    ]  # fmt: skip
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace"
        ) as child:
            assert child.stdout is not None
            try:
                for line in child.stdout:
                    report(line.rstrip())
            except BaseException:  # Ctrl-C too: otherwise the builder would use the GPU for minutes
                child.kill()
                raise
        if child.returncode:
            raise ModelLoadError(f"TensorRT can't build {name}: {_reason(child.returncode, errors)}")


def _reason(code: int, errors: IO[bytes]) -> str:
    errors.seek(0)
    last = _last_line(errors.read().decode(errors="replace"))
    if code > 0:
        return last or f"the process exited with status {code}"
    ended = f"the process was killed by {signal.Signals(-code).name}"
    if -code == signal.SIGKILL:
        ended += ", probably because memory ran out"
    return f"{ended}; its last output was: {last}" if last else ended


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return " ".join(lines[-1].split()).removeprefix("error: ") if lines else ""

"""The builder's process: started, listened to, and ended with whoever waits for it.

A process of its own, because TensorRT's libraries, the server's and those of the Python package, clash in one, and
because the builder's GPU memory comes back with the end of its process only.
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
    """The version of TensorRT's Python package, None where there is none.

    Asked of the package in a process of its own: its metadata has many names and, in some images, none, and knows
    nothing of whether the libraries load.
    """
    if importlib.util.find_spec("tensorrt") is None:
        return None
    try:
        answer = subprocess.run(
            [*COMMAND, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=VERSION_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"TensorRT's Python package didn't load in {VERSION_TIMEOUT_S} s") from None
    if answer.returncode:
        raise ConfigurationError(f"{_last_line(answer.stderr) or 'TensorRT crashes'}: mend it or uninstall it")
    return _last_line(answer.stdout)


def build_in_child(graph: Path, target: Path, profile: Profile, timing_cache: Path, name: str, report: Report) -> None:
    """Returns when `target` is written; whatever else happens, nothing is there and the process has ended."""
    command = [
        *COMMAND, str(graph), str(target), "--name", name, "--timing-cache", str(timing_cache),
        "--min", str(profile.min), "--opt", str(profile.opt), "--max", str(profile.max),
    ]  # fmt: skip
    with tempfile.TemporaryFile() as words:
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=words, text=True, errors="replace"
        ) as child:
            assert child.stdout is not None
            try:
                for line in child.stdout:
                    report(line.rstrip())
            except BaseException:  # Ctrl-C too: a builder that nobody waits for would hold the GPU for minutes
                child.kill()
                raise
        if child.returncode:
            raise ModelLoadError(f"TensorRT can't build {name}: {_reason(child.returncode, words)}")


def _reason(code: int, words: IO[bytes]) -> str:
    words.seek(0)
    last = _last_line(words.read().decode(errors="replace"))
    if code > 0:
        return last or f"its process ended with status {code}"
    ended = f"its process was ended by {signal.Signals(-code).name}"
    if -code == signal.SIGKILL:
        ended += ", which is what happens where memory runs out"
    return f"{ended}; its last words: {last}" if last else ended


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return " ".join(lines[-1].split()).removeprefix("error: ") if lines else ""

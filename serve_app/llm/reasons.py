"""Why an engine didn't start: its process tells that in its log only."""

import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

STDERR = Path("/proc/self/fd/2")
TAIL_BYTES = 256 << 10
# `(EngineCore pid=12) ERROR 11-21 12:00:00 [core.py:1] ValueError: the reason`
SAID = re.compile(r"^\((?:EngineCore|Worker)[^)\n]*\)[ \t]*(?:ERROR [^\]\n]*\])?(.*)$", re.MULTILINE)
ERROR = re.compile(r"(?:[\w.]*\.)?\w*(?:Error|Exception):(.*)")
IGNORED = "Exception ignored"
FOLLOWS = re.compile(r"root cause|Engine core initialization failed|Failed core proc|WorkerProc initialization failed")


def log_position() -> int:
    """Where this process's error log ends now; 0 where it is no file."""
    try:
        return os.stat(STDERR).st_size
    except OSError:
        return 0


def reason_of(problem: BaseException, since: int) -> str:
    """One line: what the engine's process said since then, or else the error itself."""
    told = [text for text in _told(_log_since(since)) if not FOLLOWS.search(text)]
    own = " ".join(str(problem).split()) or type(problem).__name__
    return " ".join(told[-1].split()) if told and FOLLOWS.search(own) else own


def _told(log: str) -> Iterator[str]:
    """The text of each error; it may begin on the line after the error's name."""
    ignored = False
    lines = [found[1].strip() for found in SAID.finditer(log)]
    for line, following in pairwise([*lines, ""]):
        if line.startswith(IGNORED):
            ignored = True
        elif found := ERROR.match(line):
            if not ignored:
                yield found[1].strip() or following
            ignored = False


def _log_since(position: int) -> str:
    try:
        with STDERR.open("rb") as log:
            log.seek(max(position, os.fstat(log.fileno()).st_size - TAIL_BYTES))
            return log.read().decode(errors="replace")
    except OSError:
        return ""

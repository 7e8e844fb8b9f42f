"""What the stubs of a server hold outside of it: their names, their shared memory, and who clears up after them."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from . import guardian
from .errors import InternalError, InvalidArgumentError, UnavailableError

_NAME = re.compile(r"serve_app_triton_(?P<namespace>\d+)_(?P<pid>\d+)_(?P<ticks>\d+)_\d+_")
_numbers = itertools.count(1)

# The Python backend's own defaults, for the check that they fit.
_REGION_BYTES = 1 << 20


class StubCustody:
    """The stubs and regions of one server, known by a name that no other server has."""

    def __init__(self) -> None:
        pid = os.getpid()
        ticks = guardian.start_ticks(pid)
        if ticks is None:
            raise InternalError("/proc is not readable: the Python backend can't be watched over")
        self.prefix = f"serve_app_triton_{_namespace()}_{pid}_{ticks}_{next(_numbers)}_"
        command = [_interpreter(), "-I", "-S", guardian.__file__, str(pid), ticks, self.prefix]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, start_new_session=True, stdout=subprocess.DEVNULL, bufsize=0
        )
        if process.wait():
            raise InternalError(f"the guardian of the stubs did not start: {' '.join(command)}")
        assert process.stdin is not None
        self._pipe = process.stdin

    def kill_stubs(self) -> None:
        guardian.kill_stubs(self.prefix)

    def clear(self) -> None:
        """Leave nothing now; the guardian stays, for what a server that could not be deleted may still make."""
        guardian.kill_stubs(self.prefix)
        guardian.remove_regions(self.prefix)

    def dismiss(self) -> None:
        """The server is gone: leave nothing, and let the guardian go."""
        self.clear()
        with contextlib.suppress(OSError):
            self._pipe.write(b"q")
        self._pipe.close()


def _interpreter() -> str:
    return sys.executable or str(Path(sys.prefix) / "bin" / "python3")


def _namespace() -> int:
    """The process-id namespace: /dev/shm may be shared with containers whose process ids mean others."""
    return os.stat("/proc/self/ns/pid").st_ino


def sweep() -> None:
    """Remove what servers left behind whose process and guardian were both killed."""
    for name in os.listdir(guardian.SHARED_MEMORY):
        match = _NAME.match(name)
        if match is None or int(match["namespace"]) != _namespace():
            continue
        if guardian.start_ticks(int(match["pid"])) != match["ticks"]:
            guardian.kill_stubs(match[0])
            guardian.remove_regions(match[0])


def require_shared_memory(settings: Mapping[str, str], regions: int) -> None:
    """Refuse to start where a stub's region would not fit: writing to it would kill the process."""
    default = _byte_size(settings, "shm-default-byte-size")
    needed = regions * default + _byte_size(settings, "shm-growth-byte-size")
    try:
        state = os.statvfs(guardian.SHARED_MEMORY)
    except OSError as error:
        raise UnavailableError(f"{guardian.SHARED_MEMORY} can't be used: {error.strerror}") from None
    free = state.f_bavail * state.f_frsize
    if free < needed:
        raise UnavailableError(
            f"not enough shared memory for the Python backend: {guardian.SHARED_MEMORY} has {free} bytes free, "
            f"{regions} model instances need {needed} (shm-default-byte-size is {default}; "
            "in a container, enlarge /dev/shm)"
        )


def _byte_size(settings: Mapping[str, str], name: str) -> int:
    value = settings.get(name, str(_REGION_BYTES))
    if not str(value).isdigit() or int(value) <= 0:
        raise InvalidArgumentError(f"python backend: {name} must be a number of bytes above 0, not {value!r}")
    return int(value)

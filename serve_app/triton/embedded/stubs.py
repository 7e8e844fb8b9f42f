"""The Python backend's stub processes: how many there will be, their shared memory, and their removal."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from . import guardian
from .errors import InternalError, InvalidArgumentError, UnavailableError

_BACKEND = re.compile(r"""["']?backend["']?\s*:\s*["']python["']""")
_COUNT = re.compile(r"""["']?count["']?\s*:\s*(\d+)""")
_COMMENT = re.compile(r"#.*")

_REGION_NAME = re.compile(r"serve_app_triton_(?P<namespace>\d+)_(?P<pid>\d+)_(?P<ticks>\d+)_\d+_")
_numbers = itertools.count(1)

# The Python backend's default for the size of a region and for its growth.
_REGION_BYTES = 1 << 20


def stub_count(repositories: Iterable[str], names: Iterable[str] | None = None) -> int:
    """Estimate from their files how many stubs the named models start (None: all models)."""
    wanted = None if names is None else set(names)
    return sum(
        _stubs_of(folder)
        for repository in repositories
        for folder in _folders(Path(repository))
        if wanted is None or folder.name in wanted
    )


def stub_count_of_load(repositories: Iterable[str], name: str, parameters: Mapping[str, Any] | None) -> int:
    """The same for one model that is loaded with parameters."""
    config = (parameters or {}).get("config")
    if isinstance(config, str) and '"backend"' in config:
        return _instances(config) if _BACKEND.search(config) else 0
    return stub_count(repositories, [name])


def _folders(repository: Path) -> list[Path]:
    try:
        return sorted(path for path in repository.iterdir() if path.is_dir())
    except OSError:  # Triton reports a repository that is missing, and reads one that is not local
        return []


def _stubs_of(folder: Path) -> int:
    try:
        config = _COMMENT.sub("", (folder / "config.pbtxt").read_text())
    except (OSError, UnicodeDecodeError):
        config = ""
    if _BACKEND.search(config) or ("backend" not in config and any(folder.glob("*/model.py"))):
        return _instances(config)
    return 0


def _instances(config: str) -> int:
    return max(1, sum(int(count) for count in _COUNT.findall(config)))


def require_shared_memory(settings: Mapping[str, str], regions: int) -> None:
    """Refuse to start stubs whose regions would not fit: writing to such a region kills the process."""
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
        raise InvalidArgumentError(f"python backend: {name} must be a number of bytes greater than 0, got {value!r}")
    return int(value)


class StubCleanup:
    """Removes the stubs and regions of one server, found by a prefix of their names that no other server has."""

    def __init__(self) -> None:
        pid = os.getpid()
        ticks = guardian.start_ticks(pid)
        if ticks is None:
            raise InternalError("can't read /proc, which is needed to clean up after the Python backend")
        self.prefix = f"serve_app_triton_{_namespace()}_{pid}_{ticks}_{next(_numbers)}_"
        interpreter = sys.executable or str(Path(sys.prefix) / "bin" / "python3")
        command = [interpreter, "-I", "-S", guardian.__file__, str(pid), ticks, self.prefix]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, start_new_session=True, stdout=subprocess.DEVNULL, bufsize=0
        )
        if process.wait():
            raise InternalError(f"the guardian of the Python backend's stubs did not start: {' '.join(command)}")
        assert process.stdin is not None
        self._pipe = process.stdin

    def kill_stubs(self) -> None:
        guardian.kill_stubs(self.prefix)

    def clear(self) -> None:
        """Remove everything now; the guardian stays, because a server that could not be deleted may create more."""
        guardian.kill_stubs(self.prefix)
        guardian.remove_regions(self.prefix)

    def dismiss(self) -> None:
        """Remove everything and end the guardian: the server is deleted."""
        self.clear()
        with contextlib.suppress(OSError):
            self._pipe.write(b"q")
        self._pipe.close()


def _namespace() -> int:
    """The namespace of process ids: containers that share /dev/shm may use the same ids for other processes."""
    return os.stat("/proc/self/ns/pid").st_ino


def sweep() -> None:
    """Remove what servers left behind whose process and guardian were both killed."""
    for name in os.listdir(guardian.SHARED_MEMORY):
        match = _REGION_NAME.match(name)
        if match is None or int(match["namespace"]) != _namespace():
            continue
        if guardian.start_ticks(int(match["pid"])) != match["ticks"]:
            guardian.kill_stubs(match[0])
            guardian.remove_regions(match[0])

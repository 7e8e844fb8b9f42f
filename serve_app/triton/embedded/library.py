"""Where the wheel's libraries lie, how they are loaded, and the process environment the stubs inherit.

The only module of the package that touches os.environ.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import sysconfig
import threading
from pathlib import Path

from .errors import NotFoundError

_lock = threading.Lock()
_loaded: Path | None = None


def wheel_directory() -> Path:
    """The `pytriton` folder of the nvidia-pytriton wheel; the package itself is not imported."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise NotFoundError(
            "libtritonserver not found: the Python package nvidia-pytriton is not installed in "
            f"{sys.prefix} (pip install nvidia-pytriton)"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def load() -> Path:
    """Preload what libtritonserver needs, once, and give its path."""
    global _loaded
    with _lock:
        if _loaded is None:
            folder = wheel_directory().parent / "nvidia_pytriton.libs"
            found = sorted(folder.glob("libtritonserver-*.so"))
            if not found:
                raise NotFoundError(f"libtritonserver-*.so not found in {folder}")
            _preload([path for path in sorted(folder.glob("lib*.so*")) if _needed(path)])
            _loaded = found[0]
        return _loaded


def _needed(path: Path) -> bool:
    # A second libpython in the process would be another interpreter's symbols beside ours.
    return not path.name.startswith(("libtritonserver-", "libpython"))


def _preload(paths: list[Path]) -> None:
    """Load the libraries in rounds: one that lacks a dependency succeeds once that one is in."""
    while paths:
        waiting, reasons = [], []
        for path in paths:
            try:
                ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
            except OSError as error:
                waiting.append(path)
                reasons.append(str(error))
        if len(waiting) == len(paths):
            raise NotFoundError(f"libraries of libtritonserver can't be loaded: {'; '.join(reasons)}")
        paths = waiting


def python_library_directory() -> Path:
    """The folder of this interpreter's shared libpython, which the stub links."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = f"libpython{version}.so.1.0"
    libdir = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    candidates = [
        libdir,
        libdir / (sysconfig.get_config_var("MULTIARCH") or ""),
        Path(sys.base_prefix) / "lib",
        Path("/usr/local/lib"),
    ]
    for folder in candidates:
        if (folder / name).is_file():
            return folder
    raise NotFoundError(
        f"{name} not found in {', '.join(map(str, candidates))}: Triton's Python backend needs the shared "
        f"library of Python {version} (on Debian: apt-get install libpython{version})"
    )


def prepare_environment() -> None:
    """Let the stubs, which run Python isolated, find this environment's interpreter, packages and libpython."""
    _put_first("PATH", str(Path(sys.prefix) / "bin"))
    _put_first("LD_LIBRARY_PATH", str(python_library_directory()))


def _put_first(variable: str, folder: str) -> None:
    old = [entry for entry in os.environ.get(variable, "").split(os.pathsep) if entry and entry != folder]
    os.environ[variable] = os.pathsep.join([folder, *old])

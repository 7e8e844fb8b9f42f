"""The nvidia-pytriton wheel: its libraries, its Python backend, and the environment that backend's processes inherit.

The only module of the package that touches os.environ.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path

import numpy

from .errors import NotFoundError, UnsupportedError

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

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
    """Preload the libraries that libtritonserver needs, once, and return its path."""
    global _loaded
    with _lock:
        if _loaded is None:
            folder = wheel_directory().parent / "nvidia_pytriton.libs"
            found = sorted(folder.glob("libtritonserver-*.so"))
            if not found:
                raise NotFoundError(f"libtritonserver-*.so not found in {folder}")
            _preload([path for path in sorted(folder.glob("lib*.so*")) if _is_dependency(path)])
            _loaded = found[0]
        return _loaded


def _is_dependency(path: Path) -> bool:
    # A second libpython in the process would be another interpreter's symbols beside ours.
    return not path.name.startswith(("libtritonserver-", "libpython"))


def _preload(paths: list[Path]) -> None:
    """Load the libraries in rounds: one that lacks a dependency succeeds after that one is loaded."""
    while paths:
        failed, reasons = [], []
        for path in paths:
            try:
                # Not RTLD_GLOBAL: every library that is loaded later would use these old versions of zstd, OpenSSL,
                # libffi and others in place of its own. Those of Triton find each other by name.
                ctypes.CDLL(str(path), ctypes.RTLD_LOCAL)
            except OSError as error:
                failed.append(path)
                reasons.append(str(error))
        if len(failed) == len(paths):
            raise NotFoundError(f"can't load the libraries of libtritonserver: {'; '.join(reasons)}")
        paths = failed


def backend_directory() -> str:
    """A directory of backends for this interpreter, made of links into the wheel.

    Links, because the backend and its stub find their libraries relative to the real file.
    """
    wheel = wheel_directory() / "tritonserver"
    stub = wheel / "python_backend_stubs" / _PYTHON / "triton_python_backend_stub"
    if not stub.is_file():
        versions = ", ".join(sorted(path.name for path in stub.parent.parent.glob("*")))
        raise NotFoundError(f"nvidia-pytriton has no Python backend stub for Python {_PYTHON} (it has {versions})")
    sources = [*(path for path in sorted((wheel / "backends" / "python").iterdir()) if path.is_file()), stub]
    reasons = []
    for folder in _backend_folders():
        try:
            return str(_link_backend(folder, sources))
        except OSError as error:
            reasons.append(str(error))
    raise NotFoundError(f"can't create a directory of Triton backends: {'; '.join(reasons)}")


def _backend_folders() -> list[Path]:
    """Where to create it: in the environment or, if that is read-only, in a temporary folder of the user."""
    environment = hashlib.sha256(sys.prefix.encode()).hexdigest()[:12]
    private = Path(tempfile.gettempdir()) / f"serve_app-{os.getuid()}-{environment}"
    return [Path(sys.prefix) / "share" / "serve_app", private]


def _link_backend(folder: Path, sources: list[Path]) -> Path:
    target = folder / "triton_backends" / "python"
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    if target.stat().st_uid != os.getuid() and os.getuid() != 0:
        raise PermissionError(f"{target} belongs to another user")
    for source in sources:
        link = target / source.name
        if not (link.is_symlink() and os.readlink(link) == str(source)):
            fresh = target / f".{source.name}.{os.getpid()}"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(source)
            fresh.replace(link)
    return target.parent


def require_numpy_1() -> None:
    """Refuse NumPy 2: the stubs were built for NumPy 1 and would read garbage without an error."""
    if int(numpy.__version__.split(".")[0]) >= 2:
        raise UnsupportedError(
            "Triton's Python backend needs NumPy 1, because its stubs read every tensor wrongly under NumPy 2; "
            f"NumPy {numpy.__version__} is installed (pip install 'numpy<2')"
        )


def python_library_directory() -> Path:
    """The folder of this interpreter's shared libpython, which the stub links."""
    name = f"libpython{_PYTHON}.so.1.0"
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
        f"library of Python {_PYTHON} (on Debian: apt-get install libpython{_PYTHON})"
    )


def prepare_environment() -> None:
    """Let the stubs, which run Python in isolated mode, find this environment's interpreter, packages and libpython."""
    _put_first("PATH", str(Path(sys.prefix) / "bin"))
    _put_first("LD_LIBRARY_PATH", str(python_library_directory()))


def _put_first(variable: str, folder: str) -> None:
    others = [entry for entry in os.environ.get(variable, "").split(os.pathsep) if entry and entry != folder]
    os.environ[variable] = os.pathsep.join([folder, *others])

"""The Python backend of this environment: its directory, and what it needs to give right answers."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path

import numpy

from . import library
from .errors import NotFoundError, UnsupportedError


def backend_directory() -> str:
    """A directory of backends for this interpreter, made of links into the wheel.

    Links, because the backend and the stub find their libraries relative to the file they really are.
    """
    wheel = library.wheel_directory() / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.is_file():
        have = ", ".join(sorted(path.name for path in stub.parent.parent.glob("*")))
        raise NotFoundError(f"nvidia-pytriton has no Python backend stub for Python {version} (it has {have})")
    sources = [*(path for path in sorted((wheel / "backends" / "python").iterdir()) if path.is_file()), stub]
    last: OSError | None = None
    for root in _roots():
        try:
            return str(_link(root, sources))
        except OSError as error:
            last = error
    raise NotFoundError(f"no place for the directory of backends: {last}")


def _roots() -> list[Path]:
    """Where the directory may lie: in the environment, or, where that is read-only, in a folder of the user."""
    private = (
        Path(tempfile.gettempdir()) / f"serve_app-{os.getuid()}-{hashlib.sha256(sys.prefix.encode()).hexdigest()[:12]}"
    )
    return [Path(sys.prefix) / "share" / "serve_app", private]


def _link(root: Path, sources: list[Path]) -> Path:
    target = root / "triton_backends" / "python"
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
    """Refuse NumPy 2: the stubs were built before it and would see garbage, without an error."""
    if int(numpy.__version__.split(".")[0]) >= 2:
        raise UnsupportedError(
            f"Triton's Python backend needs NumPy 1: its stubs read every tensor wrongly under NumPy 2, and "
            f"{numpy.__version__} is installed (pip install 'numpy<2')"
        )

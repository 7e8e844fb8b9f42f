"""Which weights a size is made from: a file, the public ones, or the demo's, and it says which."""

import logging
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from serve_app.errors import ConfigurationError

logger = logging.getLogger(__name__)

DEMO_WEIGHTS = "demo-yolo11n.pt"
SIZE_LETTERS = {"nano": "n", "small": "s", "medium": "m", "large": "l", "xlarge": "x"}
PUBLIC_HOST = ("github.com", 443)


@dataclass(frozen=True, slots=True)
class Weights:
    path: Path
    name: str


def public_name(family: str, size: str) -> str:
    """`yolo11` and `small` → `yolo11s.pt`, the name that ultralytics publishes."""
    return f"{family}{SIZE_LETTERS[size]}.pt"


def find_weights(wanted: str, family: str, size: str, folder: Path, fetch: bool = True) -> Weights:
    """`auto`, `demo`, or a path; relative paths are looked for in `folder` and in the working directory."""
    if wanted == "demo":
        return _demo(size, folder)
    if wanted != "auto":
        return _local(wanted, folder)
    name = public_name(family, size)
    for candidate in (folder / name, Path(name)):
        if candidate.is_file():
            return Weights(candidate, name)
    return (_fetch(name, folder) if fetch else None) or _fall_back(name, size, folder)


def _local(wanted: str, folder: Path) -> Weights:
    for candidate in (Path(wanted), folder / wanted):
        if candidate.is_file():
            return Weights(candidate, candidate.name)
    raise ConfigurationError(f"weights {wanted!r}: no such file (looked in {Path.cwd()} and {folder})")


def _demo(size: str, folder: Path) -> Weights:
    if size != "nano":
        raise ConfigurationError(f"weights for size {size!r}: the demo weights are nano only")
    path = folder / DEMO_WEIGHTS
    if not path.is_file():
        raise ConfigurationError(f"demo weights are missing: {path}; `scripts/train_demo_models detector` makes them")
    return Weights(path, DEMO_WEIGHTS)


def _fetch(name: str, folder: Path) -> Weights | None:
    """The public weights, where the network lets them through; a closed network answers within seconds."""
    try:
        socket.create_connection(PUBLIC_HOST, timeout=3).close()
    except OSError:
        return None
    from ultralytics.utils.downloads import attempt_download_asset

    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        partial = Path(scratch) / name
        try:
            attempt_download_asset(str(partial), retry=1, progress=True)
        except Exception as problem:  # whatever the download raises, there is another way
            logger.warning("%s can't be fetched: %s", name, problem)
        if not partial.is_file():
            return None
        partial.replace(folder / name)
    return Weights(folder / name, name)


def _fall_back(name: str, size: str, folder: Path) -> Weights:
    if size != "nano":
        raise ConfigurationError(
            f"weights for size {size!r}: {name} can't be fetched and the demo weights are nano only; "
            f"put {name} into {folder}, or name a file under detection.models.{size}.weights"
        )
    logger.warning(
        "%s can't be fetched: serving the DEMO weights %s (drawn shapes, not COCO). Put %s into %s for the real ones.",
        name, DEMO_WEIGHTS, name, folder,
    )  # fmt: skip
    return _demo(size, folder)

"""Finds the weights of a size: a file, the public weights, or the demo weights."""

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
    """Find `auto`, `demo`, or a path, which may be relative to the working directory or to `folder`."""
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
        raise ConfigurationError(f"demo weights {path} are missing; run `scripts/train_demo_models detector`")
    return Weights(path, DEMO_WEIGHTS)


def _fetch(name: str, folder: Path) -> Weights | None:
    """Download the public weights; without network access return None within seconds."""
    try:
        socket.create_connection(PUBLIC_HOST, timeout=3).close()
    except OSError:
        return None
    from ultralytics.utils.downloads import attempt_download_asset

    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        partial = Path(scratch) / name
        try:
            attempt_download_asset(str(partial), retry=1, progress=True)
        except Exception as problem:  # on any error there is a fallback
            logger.warning("%s can't be downloaded: %s", name, problem)
        if not partial.is_file():
            return None
        partial.replace(folder / name)
    return Weights(folder / name, name)


def _fall_back(name: str, size: str, folder: Path) -> Weights:
    if size != "nano":
        raise ConfigurationError(
            f"weights for size {size!r}: {name} can't be downloaded and the demo weights are nano only; "
            f"put {name} into {folder}, or set detection.models.{size}.weights to a file"
        )
    logger.warning(
        "%s can't be downloaded: using the DEMO weights %s (drawn shapes, not COCO). For the real ones put %s into %s.",
        name, DEMO_WEIGHTS, name, folder,
    )  # fmt: skip
    return _demo(size, folder)

"""The pictures that int8 and fp8 engines are calibrated with: a folder's, or drawn scenes."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from serve_app.detection.preprocess import ENDINGS, decode, letterbox
from serve_app.errors import ConfigurationError
from serve_app.types import Pixels

CALIBRATION_PICTURES = 128
MAX_CALIBRATION_PIXELS = 64_000_000


def calibration_squares(folder: Path | None, side: int) -> Iterator[Pixels]:
    """Letterbox the folder's pictures; without a folder draw scenes like those the demo detector was trained on."""
    if folder is None:
        from serve_app.tools.export.demo.scenes import draw_scene

        for seed in range(CALIBRATION_PICTURES):
            picture = np.ascontiguousarray(draw_scene(1_000_000 + seed).image[:, :, ::-1])
            yield letterbox(picture, side)[0]
        return
    for path in _picture_files(folder):
        yield letterbox(decode(path.read_bytes(), MAX_CALIBRATION_PIXELS), side)[0]


def calibration_key(folder: Path | None) -> str:
    """A hash of the pictures' bytes in the order of their use; the path of the folder doesn't matter."""
    digest = hashlib.sha256()
    for path in _picture_files(folder) if folder else ():
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _picture_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if not files:
        raise ConfigurationError(f"detection.calibration: no pictures ({', '.join(ENDINGS)}) in {folder}")
    return files[:CALIBRATION_PICTURES]

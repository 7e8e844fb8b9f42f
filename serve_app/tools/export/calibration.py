"""The pictures that quantizing is calibrated with: a folder's, or drawn ones."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from serve_app.detection.preprocess import ENDINGS, decode, letterbox
from serve_app.errors import ConfigurationError
from serve_app.types import Pixels

CALIBRATION_PICTURES = 128
MAX_CALIBRATION_PIXELS = 64_000_000


def calibration_squares(folder: Path | None, side: int) -> Iterator[Pixels]:
    """Letterboxed pictures: the folder's, else scenes as the demo detector knows them."""
    if folder is None:
        from serve_app.tools.export.demo.scenes import draw_scene

        for seed in range(CALIBRATION_PICTURES):
            picture = np.ascontiguousarray(draw_scene(1_000_000 + seed).image[:, :, ::-1])
            yield letterbox(picture, side)[0]
        return
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    if not files:
        raise ConfigurationError(f"calibration: no pictures under {folder}")
    for path in files[:CALIBRATION_PICTURES]:
        yield letterbox(decode(path.read_bytes(), MAX_CALIBRATION_PIXELS), side)[0]

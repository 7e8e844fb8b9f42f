"""The pictures of a check: drawn scenes of several sizes, and the photographs that come with ultralytics."""

from importlib.util import find_spec
from pathlib import Path

import cv2

from serve_app.tools.export.demo.scenes import HELD_OUT_SIZES, draw_scene

SEEDS = range(900, 915)  # those of the tests on the service
PHOTOGRAPHS = ("bus.jpg", "zidane.jpg")


def check_pictures() -> tuple[bytes, ...]:
    return (*map(_drawn, SEEDS), *((_assets() / name).read_bytes() for name in PHOTOGRAPHS))


def _drawn(seed: int) -> bytes:
    encoded, jpeg = cv2.imencode(".jpg", draw_scene(seed, size=HELD_OUT_SIZES[seed % len(HELD_OUT_SIZES)]).image)
    assert encoded
    return jpeg.tobytes()


def _assets() -> Path:
    """Ultralytics' ASSETS, without its import, which takes seconds."""
    found = find_spec("ultralytics")
    assert found is not None
    assert found.origin
    return Path(found.origin).parent / "assets"

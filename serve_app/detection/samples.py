"""The sample picture that warms up and checks every track."""

from functools import cache

import cv2
import numpy as np

from serve_app.errors import ModelLoadError
from serve_app.types import PictureResult


@cache
def sample_picture() -> bytes:
    """A JPEG of a coloured ramp with a disc and a box on it."""
    down, across = np.mgrid[0:480, 0:640]
    pixels = np.dstack((across * 255 // 640, down * 255 // 480, (across + down) % 256)).astype(np.uint8)
    pixels = np.ascontiguousarray(pixels)
    cv2.circle(pixels, (200, 240), 90, (30, 200, 250), -1)
    cv2.rectangle(pixels, (380, 140), (560, 330), (240, 60, 40), -1)
    encoded, jpeg = cv2.imencode(".jpg", pixels)
    assert encoded
    return jpeg.tobytes()


def require_answer(model: str, result: PictureResult) -> None:
    """Raise if the model failed on the sample picture."""
    if result.error:
        raise ModelLoadError(f"{model} fails on the sample picture: {result.error}")

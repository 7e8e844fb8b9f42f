"""Pictures: what is checked before they are decoded, and the decoding of those that are small enough."""

import math

from serve_app.detection.preprocess import decode, is_for_dali, letterbox, read_header

MAX_PIXELS = 1 << 18


def take(data: bytes) -> None:
    is_for_dali(data, MAX_PIXELS)
    header = read_header(data, MAX_PIXELS)
    pixels = decode(data, MAX_PIXELS, header)
    assert math.prod(pixels.shape[:2]) <= MAX_PIXELS, f"the header says {header}, the decoder {pixels.shape}"
    letterbox(pixels, 64)

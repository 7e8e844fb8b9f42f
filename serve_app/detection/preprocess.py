"""From the bytes of a picture to the letterboxed square that the engines take, as ultralytics does it."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from serve_app.errors import NotAnImageError, UnreadableImageError
from serve_app.types import Pixels

# How the first bytes of each format look; what looks otherwise is no picture here.
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")  # of files that may be pictures
SIGNATURES = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WEBP": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "BMP": re.compile(rb"BM"),
}
# Pillow walks a JPEG's markers one by one: bytes that are made for it would keep it walking for minutes.
JPEG_HEADER_BYTES = 2 << 20
START_OF_SCAN, END_OF_PICTURE = 0xDA, b"\xff\xd9"
PADDING_GREY = 114
ORIENTATION_TAG = 0x0112
Image.MAX_IMAGE_PIXELS = None  # the limit below is the one that counts; Pillow's own only warns or guesses

# EXIF orientation → what brings the picture upright
UPRIGHT: dict[int, Callable[[Any], Any]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: lambda pixels: cv2.transpose(pixels),
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.rotate(cv2.transpose(pixels), cv2.ROTATE_180),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What the first bytes of a picture tell before anything is decoded."""

    format: str
    width: int
    height: int
    mode: str
    orientation: int


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where a picture of `width`×`height` lies inside the engine's square."""

    width: int
    height: int
    inner_width: int
    inner_height: int
    left: int
    top: int

    @classmethod
    def fit(cls, width: int, height: int, side: int) -> "Letterbox":
        gain = min(side / height, side / width)
        inner_width, inner_height = max(round(width * gain), 1), max(round(height * gain), 1)
        # -0.1 sends the odd pixel to the right and the bottom, as ultralytics does
        left = round((side - inner_width) / 2 - 0.1)
        top = round((side - inner_height) / 2 - 0.1)
        return cls(width, height, inner_width, inner_height, left, top)


def read_header(data: bytes | memoryview, max_pixels: int) -> PictureHeader:
    """Refuse what is no picture and what would be too large, before memory is spent on it."""
    kind = next((name for name, signature in SIGNATURES.items() if signature.match(data)), None)
    if kind is None:
        formats = ", ".join(SIGNATURES)
        raise NotAnImageError(f"the {len(data)} bytes are no picture in a format read here: {formats}")
    try:
        with Image.open(io.BytesIO(data[:JPEG_HEADER_BYTES] if kind == "JPEG" else data), formats=(kind,)) as image:
            # Only JPEG keeps it where no pixel has to be decoded for it; OpenCV turns the others.
            orientation = image.getexif().get(ORIENTATION_TAG, 1) if kind == "JPEG" else 1
            header = PictureHeader(kind, image.width, image.height, image.mode, orientation)
    except Exception as problem:  # Pillow's parsers raise nearly anything on bytes that are made to break them
        raise UnreadableImageError(f"the {kind} picture's header can't be read: {type(problem).__name__}") from None
    pixels = header.width * header.height
    if pixels > max_pixels:
        raise UnreadableImageError(
            f"the picture has {header.width}x{header.height} = {pixels} pixels, over the limit of {max_pixels}"
        )
    if pixels == 0:
        raise UnreadableImageError("the picture has no pixels")
    return header


def is_for_dali(data: bytes | memoryview, max_pixels: int) -> bool:
    """Whether DALI may be given a picture; what isn't is for `decode`, which tells what is wrong with it.

    DALI has no limit of pixels and reads formats that `decode` doesn't. Its CPU decoder refuses what is cut off, and
    with it the whole batch; GPU decoders may fill what is missing and tell nobody.
    """
    try:
        header = read_header(data, max_pixels)
    except (NotAnImageError, UnreadableImageError):
        return False
    return header.format != "JPEG" or _has_an_end(bytes(data))


def _has_an_end(jpeg: bytes) -> bool:
    """An end marker after the scan has begun: thumbnails before it have their own, and files go on after it."""
    place = 2
    while place + 4 <= len(jpeg) and jpeg[place] == 0xFF:
        length = int.from_bytes(jpeg[place + 2 : place + 4])
        if jpeg[place + 1] == START_OF_SCAN:
            return jpeg.find(END_OF_PICTURE, place + 2 + length) >= 0
        place += 2 + length
    return False  # something rare, such as bytes between two segments: `decode` reads that as well


def decode(data: bytes | memoryview, max_pixels: int) -> Pixels:
    """Decode to upright RGB; grey, palette, CMYK and alpha pictures become plain RGB."""
    header = read_header(data, max_pixels)
    if header.format == "JPEG" and header.mode in ("RGB", "L"):
        pixels = _decode_jpeg(data)
        turn = UPRIGHT.get(header.orientation)
        return turn(pixels) if turn else pixels
    decoded = _decode_with_opencv(data)
    if decoded is None:
        raise UnreadableImageError(f"the {header.format} picture of {header.width}x{header.height} can't be decoded")
    return decoded


def _decode_jpeg(data: bytes | memoryview) -> Pixels:
    try:
        return simplejpeg.decode_jpeg(data, "RGB")  # type: ignore[no-any-return]
    except ValueError as problem:
        if "premature end" in str(problem).lower():
            raise UnreadableImageError("the JPEG picture is cut off") from None
    try:  # other complaints are warnings that viewers and ultralytics accept, such as bytes between markers
        return simplejpeg.decode_jpeg(data, "RGB", strict=False)  # type: ignore[no-any-return]
    except ValueError as problem:
        raise UnreadableImageError(f"the JPEG picture can't be decoded: {problem}") from None


def _decode_with_opencv(data: bytes | memoryview) -> Pixels | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)  # type: ignore[return-value]
    except cv2.error:
        return None


def letterbox(pixels: Pixels, side: int) -> tuple[Pixels, Letterbox]:
    """Scale a picture into a grey square without changing its proportions."""
    height, width = pixels.shape[:2]
    box = Letterbox.fit(width, height, side)
    square = np.full((side, side, 3), PADDING_GREY, np.uint8)
    inner = square[box.top : box.top + box.inner_height, box.left : box.left + box.inner_width]
    if (box.inner_width, box.inner_height) == (width, height):
        inner[:] = pixels
    else:
        cv2.resize(pixels, (box.inner_width, box.inner_height), dst=inner, interpolation=cv2.INTER_LINEAR)
    return square, box


def as_unit_planes(square: Pixels) -> npt.NDArray[np.float32]:
    """[1,3,side,side] FP32 in 0–1: what the raw and the end-to-end models take as `images`."""
    return cv2.dnn.blobFromImage(square, 1 / 255.0)  # type: ignore[return-value]

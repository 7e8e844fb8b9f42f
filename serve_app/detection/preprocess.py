"""Decodes and letterboxes pictures for the engines, as ultralytics does."""

import io
import re
import struct
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

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")  # of picture files
# The first bytes of each format that is accepted
SIGNATURES = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WEBP": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    "BMP": re.compile(rb"BM"),
}
# Pillow reads a JPEG's markers and a PNG's chunks one by one; crafted bytes could keep it busy for minutes.
HEADER_BYTES = 2 << 20
PNG_SIGNATURE_BYTES, CHUNK, CHECKSUM_BYTES = 8, struct.Struct(">I4s"), 4  # a chunk's length and kind, before its data
MAX_CHUNKS = 1 << 16
START_OF_SCAN, END_OF_PICTURE = 0xDA, b"\xff\xd9"
# Decoders pass over all pixels once a scan. Progressive JPEGs have about ten, crafted ones have thousands.
USUAL_SCANS, MAX_SCANS, MAX_PASSES = 4, 64, 12
MARKER = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")  # that ends the data of a scan
# What most JPEGs have before their first scan: tables, comments, a colour profile, one baseline or progressive frame.
# EXIF may turn the picture, and Adobe's marker changes its colours.
FRAMES = (0xC0, 0xC2)
UNUSUAL = frozenset({*range(256)} - {0xE0, *range(0xE2, 0xEE), 0xDB, 0xC4, 0xDD, 0xFE, *FRAMES, START_OF_SCAN})
MAX_PLAIN_SEGMENTS, SEGMENT = 32, struct.Struct(">BBHBHHB")  # a marker, its length, and what a frame begins with
PADDING_GREY = 114
ORIENTATION_TAG = 0x0112
Image.MAX_IMAGE_PIXELS = None  # read_header checks max_pixels instead

# EXIF orientation → the function that turns the picture upright
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
    """What is known about a picture before it is decoded."""

    format: str
    width: int
    height: int
    mode: str
    orientation: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


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


def read_plain_header(data: bytes, max_pixels: int) -> PictureHeader | None:
    """That of an everyday JPEG, in a few microseconds; None for what needs `read_header`."""
    place, size = 2, None
    if not SIGNATURES["JPEG"].match(data) or len(data) > HEADER_BYTES or _count_marks(data) > USUAL_SCANS:
        return None
    for _ in range(MAX_PLAIN_SEGMENTS):
        head = data[place : place + SEGMENT.size]
        if len(head) < SEGMENT.size or head[0] != 0xFF or head[1] in UNUSUAL:
            return None
        _, kind, length, bits, height, width, components = SEGMENT.unpack(head)
        if kind == START_OF_SCAN:
            return PictureHeader("JPEG", *size, "RGB", 1) if size else None
        if kind in FRAMES:
            if size or bits != 8 or components != 3 or not 0 < width * height <= max_pixels:
                return None
            size = width, height
        place += 2 + length
    return None


def read_header(data: bytes | memoryview, max_pixels: int) -> PictureHeader:
    """Read the header; refuse other files and too many pixels before memory is allocated for them."""
    kind = next((name for name, signature in SIGNATURES.items() if signature.match(data)), None)
    if kind is None:
        formats = ", ".join(SIGNATURES)
        raise NotAnImageError(f"the {len(data)} bytes are not a picture in a supported format ({formats})")
    try:
        with Image.open(io.BytesIO(data[:HEADER_BYTES] if kind in ("JPEG", "PNG") else data), formats=(kind,)) as image:
            # OpenCV rotates the other formats, for which Pillow would have to decode pixels.
            orientation = image.getexif().get(ORIENTATION_TAG, 1) if kind == "JPEG" else 1
            header = PictureHeader(kind, image.width, image.height, image.mode, orientation)
    except Exception as problem:  # Pillow's parsers raise nearly anything on malformed bytes
        raise UnreadableImageError(f"the {kind} picture's header can't be read: {type(problem).__name__}") from None
    if header.pixels > max_pixels:
        raise UnreadableImageError(
            f"the picture has {header.width}x{header.height} = {header.pixels} pixels, over the limit of {max_pixels}"
        )
    if header.pixels == 0:
        raise UnreadableImageError("the picture has no pixels")
    if kind == "JPEG":
        _require_few_scans(bytes(data), header.pixels, max_pixels)
    if kind == "PNG":
        _require_whole_chunks(data)
    return header


def _require_whole_chunks(png: bytes | memoryview) -> None:
    """OpenCV allocates the bytes that a chunk announces, up to two gigabytes, before it looks for them."""
    place = PNG_SIGNATURE_BYTES
    for _ in range(MAX_CHUNKS):
        if place + CHUNK.size > len(png):
            return
        length, kind = CHUNK.unpack_from(png, place)
        place += CHUNK.size + length + CHECKSUM_BYTES
        if place > len(png):
            raise UnreadableImageError("the PNG picture is cut off")
        if kind == b"IEND":
            return
    raise UnreadableImageError(f"the PNG picture has more than {MAX_CHUNKS} chunks")


def _require_few_scans(jpeg: bytes, pixels: int, max_pixels: int) -> None:
    limit = min(MAX_SCANS, max(MAX_PASSES * max_pixels // pixels, MAX_PASSES))
    # every scan has its mark, but a thumbnail or a video after the picture may have it too: those need a closer look
    if _count_marks(jpeg) > min(USUAL_SCANS, limit) and _count_scans(jpeg, limit + 1) > limit:
        raise UnreadableImageError(f"the JPEG picture has more than {limit} scans")


def _count_marks(jpeg: bytes) -> int:
    """Bytes that mark a scan, wherever they are; NumPy counts them five times as fast as `bytes`."""
    characters = np.frombuffer(jpeg, np.uint8)
    return int(np.count_nonzero((characters[:-1] == 0xFF) & (characters[1:] == START_OF_SCAN)))


def _count_scans(jpeg: bytes, most: int) -> int:
    """Scans before the end of the picture, but no more than `most`."""
    scans, place = 0, 2
    while scans < most and (marker := MARKER.search(jpeg, place)):
        kind, place = jpeg[marker.start() + 1], marker.end()
        if kind == END_OF_PICTURE[1]:
            break
        scans += kind == START_OF_SCAN
        place += int.from_bytes(jpeg[place : place + 2])
    return scans


def is_for_dali(data: bytes | memoryview, max_pixels: int) -> bool:
    """Whether DALI may decode a picture; the others go to `decode`, which reports what is wrong with them.

    DALI has no pixel limit and reads more formats. For a truncated picture its CPU decoder fails the whole batch, and
    GPU decoders may fill the missing part without an error.
    """
    try:
        header = read_header(data, max_pixels)
    except (NotAnImageError, UnreadableImageError):
        return False
    return header.format != "JPEG" or _has_an_end(bytes(data))


def _has_an_end(jpeg: bytes) -> bool:
    """Look for an end marker after the start of the scan; thumbnails before it have their own end markers."""
    place = 2
    while place + 4 <= len(jpeg) and jpeg[place] == 0xFF:
        length = int.from_bytes(jpeg[place + 2 : place + 4])
        if jpeg[place + 1] == START_OF_SCAN:
            return jpeg.find(END_OF_PICTURE, place + 2 + length) >= 0
        place += 2 + length
    return False  # rare, such as bytes between two segments; `decode` can read it


def decode(data: bytes | memoryview, max_pixels: int, header: PictureHeader | None = None) -> Pixels:
    """Decode to upright RGB; grey, palette, CMYK and alpha pictures are converted. `header` is what was read of it."""
    header = header or read_header(data, max_pixels)
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
    try:  # other errors are warnings, such as bytes between markers, that viewers and ultralytics ignore
        return simplejpeg.decode_jpeg(data, "RGB", strict=False)  # type: ignore[no-any-return]
    except ValueError as problem:
        raise UnreadableImageError(f"the JPEG picture can't be decoded: {problem}") from None


def _decode_with_opencv(data: bytes | memoryview) -> Pixels | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)  # type: ignore[return-value]
    except cv2.error:
        return None


def letterbox(pixels: Pixels, side: int) -> tuple[Pixels, Letterbox]:
    """Scale a picture into a grey square, keeping its aspect ratio."""
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
    """[1,3,side,side] FP32 in 0–1, the input `images` of the raw and end-to-end models."""
    return cv2.dnn.blobFromImage(square, 1 / 255.0)  # type: ignore[return-value]

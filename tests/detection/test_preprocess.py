"""Pictures of every kind are decoded and letterboxed as by ultralytics."""

import io
import zlib
from contextlib import suppress

import cv2
import numpy as np
import pytest
from PIL import Image
from ultralytics.data.augment import LetterBox

from serve_app.detection.preprocess import (
    HEADER_BYTES,
    MAX_CHUNKS,
    as_unit_planes,
    decode,
    letterbox,
    read_header,
    read_plain_header,
)
from serve_app.errors import NotAnImageError, UnreadableImageError

LIMIT = 64_000_000
GRADIENT = np.dstack(
    np.broadcast_arrays(np.arange(90)[:, None] * 2, np.arange(60)[None] * 4, np.full((90, 60), 77))
).astype(np.uint8)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def with_orientation(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(GRADIENT), kind, exif=exif, quality=95)


def opencv(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


def converted(mode):
    if mode == "I;16":
        return Image.fromarray(np.arange(5400, dtype=np.uint16).reshape(90, 60) * 12)
    image = Image.fromarray(GRADIENT)
    return image.convert("L").convert("LA") if mode == "LA" else image.convert(mode)


def test_every_format_and_colour_space_is_decoded_to_rgb_as_by_opencv():
    for kind in ("JPEG", "PNG", "WEBP", "BMP"):
        picture = decode(encoded(Image.fromarray(GRADIENT), kind, quality=95), LIMIT)
        assert (picture.shape, picture.dtype) == ((90, 60, 3), np.uint8)
        assert np.abs(picture.astype(int) - GRADIENT).mean() < 3, kind
    for kind, modes in (("PNG", ("L", "P", "RGBA", "LA", "1", "I;16")), ("JPEG", ("L", "CMYK", "RGB"))):
        for mode in modes:
            data = encoded(converted(mode), kind)
            assert np.array_equal(decode(data, LIMIT), opencv(data)), (kind, mode)


def bomb(size, scans):
    """A progressive JPEG whose last scan, which refines a coefficient by nothing, is there many times."""
    jpeg = encoded(Image.new("RGB", size, "grey"), "JPEG", progressive=True)
    last = jpeg.rfind(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * scans + jpeg[-2:]


def test_a_jpeg_of_more_scans_than_an_encoder_writes_is_refused_before_it_is_decoded():
    for jpeg, limit in ((bomb((640, 480), 3000), 64), (bomb((6000, 6000), 30), 21)):
        with pytest.raises(UnreadableImageError, match=f"more than {limit} scans"):
            read_header(jpeg, LIMIT)
    assert decode(bomb((640, 480), 50), LIMIT).shape == (480, 640, 3)
    assert read_header(encoded(Image.new("RGB", (8000, 8000)), "JPEG", progressive=True), LIMIT).width == 8000


def test_marks_of_scans_outside_of_the_picture_are_not_scans():
    jpeg = encoded(Image.fromarray(GRADIENT), "JPEG", comment=b"\xff\xda" * 200)
    for data in (jpeg, jpeg + b"\xff\xda" * 200):  # a thumbnail in the head, a video behind the end
        assert np.array_equal(decode(data, LIMIT), opencv(data))


def test_pictures_are_turned_upright_by_their_exif_orientation():
    for kind in ("JPEG", "WEBP", "PNG"):
        for orientation in range(1, 9):
            data = with_orientation(kind, orientation)
            picture = decode(data, LIMIT)
            assert picture.shape == ((60, 90, 3) if orientation >= 5 else (90, 60, 3)), (kind, orientation)
            assert np.array_equal(picture, opencv(data)), (kind, orientation)


def jpeg(mode="RGB", size=(90, 40), **options):
    file = io.BytesIO()
    Image.new(mode, size).save(file, "JPEG", **options)
    return file.getvalue()


def test_an_everyday_jpegs_header_is_read_as_pillow_reads_it_and_others_are_left_to_pillow():
    turned = Image.Exif()
    turned[0x0112] = 6
    plain = [jpeg(), jpeg(quality=95, subsampling=0), jpeg(comment=b"hello"), jpeg(icc_profile=b"x" * 100)]
    for picture in plain:
        assert read_plain_header(picture, 90 * 40) == read_header(picture, 90 * 40)
        assert read_plain_header(picture, 90 * 40 - 1) is None
        assert read_plain_header(picture + bytes(HEADER_BYTES), 90 * 40) is None
    scans = jpeg(progressive=True)
    for other in (scans, jpeg(exif=turned), jpeg("L"), jpeg("CMYK"), b"", b"\xff\xd8\xff", b"GIF89a"):
        assert read_plain_header(other, 90 * 40) is None


def test_of_a_damaged_jpeg_the_plain_header_is_none_or_pillows():
    picture, random = bytearray(jpeg(comment=b"hello")), np.random.default_rng(0)
    start = picture.index(b"\xff\xda") + 2
    found = 0
    for _ in range(3000):
        damaged = bytearray(picture)
        for place in random.integers(0, start, random.integers(1, 4)):
            damaged[place] = random.integers(0, 256)
        header = read_plain_header(bytes(damaged[: random.integers(start // 2, len(damaged))]), 10_000)
        if header is None:
            continue
        found += 1
        with suppress(UnreadableImageError):  # tables that are wrong, which the decoder refuses
            assert header == read_header(bytes(damaged), 10_000)
    assert found > 300


def test_other_files_are_refused():
    for data in (b"", b"hello", b"%PDF-1.7", b"GIF89a" + bytes(50)):
        with pytest.raises(NotAnImageError) as error:
            decode(data, LIMIT)
        assert error.value.status == 415
        assert error.value.message == (
            f"the {len(data)} bytes are not a picture in a supported format (JPEG, PNG, WEBP, BMP)"
        )


def test_a_truncated_picture_is_refused_and_bytes_after_its_end_are_ignored():
    noise = np.random.default_rng(1).integers(0, 255, (200, 200, 3), np.uint8)
    for kind in ("JPEG", "PNG", "WEBP", "BMP"):
        data = encoded(Image.fromarray(noise), kind)
        with pytest.raises(UnreadableImageError) as error:
            decode(data[: len(data) // 2], LIMIT)
        assert error.value.status == 422, kind
    data = encoded(Image.fromarray(GRADIENT), "JPEG")
    assert np.array_equal(decode(data + bytes(1000), LIMIT), decode(data, LIMIT))


def test_a_header_must_be_within_the_first_two_mebibytes_of_a_jpeg():
    data = encoded(Image.fromarray(GRADIENT), "JPEG")
    comments = b"\xff\xfe\xff\xff" + bytes(0xFFFD)
    few, many = (data[:2] + comments * count + data[2:] for count in (8, HEADER_BYTES // len(comments) + 2))
    assert read_header(few, LIMIT).width == 60
    with pytest.raises(UnreadableImageError, match="header can't be read"):
        read_header(many, LIMIT)


def test_a_png_whose_chunks_would_take_memory_or_time_is_refused():
    data = encoded(Image.fromarray(GRADIENT), "PNG")
    place = data.index(b"IDAT") - 4
    empty = bytes(4) + b"teSt" + zlib.crc32(b"teSt").to_bytes(4)
    assert np.array_equal(decode(data[:place] + empty * 100 + data[place:] + b"more", LIMIT), decode(data, LIMIT))
    for crafted, reason in (
        (data[:place] + b"\x7f\xff\xff\xff" + data[place + 4 :], "is cut off"),
        (data[:-12] + b"\x40\0\0\0IDAT", "is cut off"),
        (data[:place] + empty * MAX_CHUNKS + data[place:], f"more than {MAX_CHUNKS} chunks"),
        (data[:place] + empty * (HEADER_BYTES // 12) + data[place:], "header can't be read"),
    ):
        with pytest.raises(UnreadableImageError, match=reason):
            read_header(crafted, LIMIT)


def test_too_many_pixels_are_refused_by_the_header_alone():
    header_only = encoded(Image.new("1", (9000, 9000)), "PNG")[:200]
    with pytest.raises(UnreadableImageError, match="9000x9000 = 81000000 pixels, over the limit of 64000000"):
        read_header(header_only, LIMIT)


def test_damaged_pictures_are_decoded_or_refused_and_raise_nothing_else():
    generator, outcomes = np.random.default_rng(7), set()
    originals = [encoded(Image.fromarray(GRADIENT), kind) for kind in ("JPEG", "PNG", "WEBP", "BMP")]
    for number in range(400):
        data = bytearray(originals[number % 4])
        for position in generator.integers(0, len(data), 8):
            data[position] = generator.integers(0, 256)
        outcomes.add(outcome_of(bytes(data)))
    assert outcomes == {"decoded", "refused"}


def outcome_of(data):
    try:
        decode(data, 1_000_000)
    except (NotAnImageError, UnreadableImageError):
        return "refused"
    return "decoded"


def test_the_letterbox_equals_that_of_ultralytics():
    for height, width in (
        (640, 640), (480, 640), (1080, 810), (1, 1), (1, 900), (333, 17), (719, 1283), (2000, 3),
    ):  # fmt: skip
        picture = np.random.default_rng(height).integers(0, 255, (height, width, 3), np.uint8)
        square, _ = letterbox(picture, 640)
        assert np.array_equal(square, LetterBox((640, 640), auto=False)(image=picture)), (height, width)


def test_planes_are_channels_first_between_0_and_1():
    square = np.random.default_rng(3).integers(0, 255, (64, 64, 3), np.uint8)
    planes = as_unit_planes(square)
    assert planes.shape == (1, 3, 64, 64)
    assert planes.flags["C_CONTIGUOUS"]
    assert np.abs(planes[0] - square.transpose(2, 0, 1) / 255).max() < 1e-6

"""Pictures of every kind become the square that ultralytics would make of them."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image
from ultralytics.data.augment import LetterBox

from serve_app.detection.preprocess import JPEG_HEADER_BYTES, as_unit_planes, decode, letterbox, read_header
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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_every_format_decodes_to_upright_rgb(kind):
    picture = decode(encoded(Image.fromarray(GRADIENT), kind, quality=95), LIMIT)
    assert picture.shape == (90, 60, 3)
    assert picture.dtype == np.uint8
    assert np.abs(picture.astype(int) - GRADIENT).mean() < 3


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "I;16"])
def test_pictures_without_three_plain_channels_become_rgb(mode):
    source = Image.fromarray(GRADIENT)
    if mode == "I;16":
        source = Image.fromarray(np.arange(5400, dtype=np.uint16).reshape(90, 60) * 12)
    elif mode == "LA":
        source = source.convert("L").convert("LA")
    else:
        source = source.convert(mode)
    data = encoded(source, "PNG")
    assert np.array_equal(decode(data, LIMIT), opencv(data))


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_jpegs_of_every_colour_space_decode_as_opencv_decodes_them(mode):
    data = encoded(Image.fromarray(GRADIENT).convert(mode), "JPEG", quality=95)
    assert np.array_equal(decode(data, LIMIT), opencv(data))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_the_exif_orientation_is_honoured(kind, orientation):
    data = with_orientation(kind, orientation)
    picture = decode(data, LIMIT)
    assert picture.shape == ((60, 90, 3) if orientation >= 5 else (90, 60, 3))
    assert np.array_equal(picture, opencv(data))


def test_bytes_that_are_no_picture_are_refused_as_such():
    for data in (b"", b"hello", b"%PDF-1.7", b"GIF89a" + bytes(50)):
        with pytest.raises(NotAnImageError, match="no picture in a format read here: JPEG, PNG, WEBP, BMP"):
            decode(data, LIMIT)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_picture_that_is_cut_off_is_refused(kind):
    noise = np.random.default_rng(1).integers(0, 255, (200, 200, 3), np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    with pytest.raises((UnreadableImageError, NotAnImageError)) as caught:
        decode(data[: len(data) // 2], LIMIT)
    assert caught.value.status in (415, 422)


def test_a_jpeg_with_bytes_after_its_end_is_read():
    data = encoded(Image.fromarray(GRADIENT), "JPEG")
    assert np.array_equal(decode(data + bytes(1000), LIMIT), decode(data, LIMIT))


def test_a_header_is_looked_for_at_the_beginning_only():
    data = encoded(Image.fromarray(GRADIENT), "JPEG")
    comments = b"\xff\xfe\xff\xff" + bytes(0xFFFD)
    few, many = (data[:2] + comments * count + data[2:] for count in (8, JPEG_HEADER_BYTES // len(comments) + 2))
    assert read_header(few, LIMIT).width == 60
    with pytest.raises(UnreadableImageError, match="header can't be read"):
        read_header(many, LIMIT)


def test_too_many_pixels_are_refused_from_the_header_alone():
    header_only = encoded(Image.new("RGB", (9000, 9000)), "PNG")[:200]
    with pytest.raises(UnreadableImageError, match="9000x9000 = 81000000 pixels, over the limit of 64000000"):
        read_header(header_only, LIMIT)


def test_random_damage_is_refused_or_decoded_but_raises_nothing_else():
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
        decode(data, LIMIT)
    except (NotAnImageError, UnreadableImageError):
        return "refused"
    return "decoded"


@pytest.mark.parametrize(
    ("height", "width"), [(640, 640), (480, 640), (1080, 810), (1, 1), (1, 900), (333, 17), (719, 1283), (2000, 3)]
)
def test_the_letterbox_is_ultralytics_own(height, width):
    picture = np.random.default_rng(height).integers(0, 255, (height, width, 3), np.uint8)
    square, _ = letterbox(picture, 640)
    assert np.array_equal(square, LetterBox((640, 640), auto=False)(image=picture))


def test_planes_are_in_zero_to_one_channel_first():
    square = np.random.default_rng(3).integers(0, 255, (64, 64, 3), np.uint8)
    planes = as_unit_planes(square)
    assert planes.shape == (1, 3, 64, 64)
    assert planes.flags["C_CONTIGUOUS"]
    assert np.abs(planes[0] - square.transpose(2, 0, 1) / 255).max() < 1e-6

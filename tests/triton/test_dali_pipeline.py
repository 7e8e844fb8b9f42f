"""DALI's pipeline makes the same squares as the preprocessing in Python, and can be written for Triton's backend."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline
from PIL import Image

from serve_app.detection.preprocess import Letterbox, decode, is_for_dali, letterbox
from serve_app.errors import UnreadableImageError
from serve_app.triton.python_models.dali_pipeline import build_pipeline, fit_letterbox, write_pipeline

SIDE = 640
LIMIT = 64_000_000
ORIENTATION_TAG = 0x0112


def noise(width, height, channels=3):
    """Smooth like photos, so that JPEG's blocks differ little from their neighbours."""
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, channels), np.uint8)
    return cv2.GaussianBlur(pixels, (0, 0), 3) if min(width, height) > 8 else pixels


def encoded(width, height, mode="RGB", kind="JPEG", orientation=None, **options):
    if orientation:
        options["exif"] = Image.Exif()
        options["exif"][ORIENTATION_TAG] = orientation
    if kind == "JPEG":
        options = {"quality": 95} | options
    buffer = io.BytesIO()
    Image.fromarray(noise(width, height)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def with_alpha(width, height, kind):
    buffer = io.BytesIO()
    Image.fromarray(noise(width, height, 4), "RGBA").save(buffer, kind)
    return buffer.getvalue()


def with_16_bits(width, height):
    pixels = np.random.default_rng(5).integers(0, 65536, (height, width, 3)).astype(np.uint16)
    return cv2.imencode(".png", pixels)[1].tobytes()


PICTURES = {
    "640x480": encoded(640, 480),
    "of half the colours": encoded(640, 480, subsampling=2),
    "progressive": encoded(333, 222, progressive=True),
    "odd": encoded(641, 333),
    "portrait": encoded(300, 901),
    "grey JPEG": encoded(500, 400, "L"),
    "one pixel": encoded(1, 1),
    "wide": encoded(2000, 3),
    "tall": encoded(3, 2000),
    "thinner than a pixel": encoded(5000, 1, kind="PNG"),
    "small": encoded(97, 61),
    "half a pixel too high": encoded(256, 1, kind="PNG"),  # 2.5 pixels high: 2, not 3
    "RGBA PNG": with_alpha(120, 90, "PNG"),
    "palette PNG": encoded(120, 90, "P", "PNG"),
    "black and white PNG": encoded(120, 90, "1", "PNG"),
    "PNG on its side": encoded(120, 90, kind="PNG", orientation=6),
    "WebP": encoded(120, 90, kind="WEBP"),
    "WebP without loss": encoded(120, 90, kind="WEBP", lossless=True),
    "RGBA WebP": with_alpha(120, 90, "WEBP"),
    "WebP on its side": encoded(120, 90, kind="WEBP", orientation=8),
    "BMP": encoded(120, 90, kind="BMP"),
    "palette BMP": encoded(120, 90, "P", "BMP"),
} | {f"orientation {number}": encoded(401, 300, orientation=number) for number in range(1, 9)}
# The decoders' values differ by 1 already, and resizing adds to it: about 1 of 100 values differs by 2.
ROUNDED_TWICE = {"CMYK JPEG": encoded(320, 200, "CMYK"), "16-bit PNG": with_16_bits(60, 50)}

# names with their lengths before them, as in the protocol buffer
WRITTEN = (
    b"\x07encoded", b"decoders__Image", b"\x05mixed", b"jpeg_fancy_upsampling", b"PeekImageShape", b"\x06images",
    b"\x0doriginal_size",
)  # fmt: skip


@pytest.fixture(scope="module")
def pipeline():
    return build_pipeline(SIDE, 8, 1, "cpu")


def run(pipeline, *pictures):
    images, sizes = pipeline.run(encoded=[np.frombuffer(data, np.uint8) for data in pictures])
    return images.as_array().copy(), sizes.as_array().copy()


def assert_same(image, size, data, tolerance):
    expected, box = letterbox(decode(data, LIMIT), SIDE)
    assert (image.shape, image.dtype, size.dtype) == ((SIDE, SIDE, 3), np.uint8, np.int32)
    assert size.tolist() == [box.width, box.height]
    assert np.abs(image.astype(int) - expected).max() <= tolerance


def test_a_picture_becomes_the_same_square_as_in_python(pipeline):
    for name, data in PICTURES.items():
        images, sizes = run(pipeline, data)
        try:
            assert_same(images[0], sizes[0], data, tolerance=1)
        except AssertionError as difference:
            raise AssertionError(name) from difference


def test_a_picture_whose_colours_are_converted_differs_by_at_most_two(pipeline):
    for data in ROUNDED_TWICE.values():
        images, sizes = run(pipeline, data)
        assert_same(images[0], sizes[0], data, tolerance=2)
        expected, _ = letterbox(decode(data, LIMIT), SIDE)
        assert (np.abs(images[0].astype(int) - expected) > 1).mean() < 0.02


def test_a_batch_gets_the_squares_of_its_pictures_one_by_one(pipeline):
    names = ["odd", "tall", "one pixel", "orientation 6", "RGBA PNG", "BMP", "WebP", "portrait"]
    images, sizes = run(pipeline, *(PICTURES[name] for name in names))
    for image, size, name in zip(images, sizes, names, strict=True):
        alone, alone_size = run(pipeline, PICTURES[name])
        assert np.array_equal(image, alone[0])
        assert np.array_equal(size, alone_size[0])


@pytest.mark.parametrize("side", [333, 640])
def test_pictures_of_every_size_fit_as_in_python(side):
    sizes = Pipeline(1, 1, None, prefetch_queue_depth=1, exec_pipelined=False, exec_async=False)
    with sizes:
        width, height = (fn.external_source(name=name, ndim=1, dtype=types.INT32) for name in ("width", "height"))
        sizes.set_outputs(*fit_letterbox(width, height, side))
    small = np.stack(np.meshgrid(np.arange(1, 500), np.arange(1, 500))).reshape(2, -1)
    large = np.random.default_rng(side).integers(1, 65536, (2, 50_000))
    width, height = np.concatenate((small, large), axis=1).astype(np.int32)
    found = [values.as_array()[0] for values in sizes.run(width=[width], height=[height])]
    for values, expected in zip(found, fit_in_numpy(width, height, side), strict=True):
        assert np.array_equal(values, expected)
    for number in range(0, len(width), 997):
        box = Letterbox.fit(int(width[number]), int(height[number]), side)
        assert [int(values[number]) for values in found] == [box.inner_width, box.inner_height, box.left, box.top]


def fit_in_numpy(width, height, side):
    """`Letterbox.fit` of many sizes at once; np.rint rounds like Python's round()."""
    gain = np.minimum(side / height, side / width)
    inner_width, inner_height = np.maximum(np.rint(width * gain), 1), np.maximum(np.rint(height * gain), 1)
    return inner_width, inner_height, np.rint((side - inner_width) / 2 - 0.1), np.rint((side - inner_height) / 2 - 0.1)


def half_of(kind):
    data = encoded(300, 200, kind=kind)
    return data[: len(data) // 2]


def test_dali_fails_a_whole_batch_for_one_truncated_picture():
    for kind in ("JPEG", "PNG", "WEBP", "BMP"):
        pipeline = build_pipeline(SIDE, 2, 1, "cpu")
        with pytest.raises(RuntimeError, match="Current pipeline object is no longer valid"):
            run(pipeline, PICTURES["odd"], half_of(kind))


def test_dali_gets_complete_pictures_under_the_limit_and_nothing_else(pipeline):
    for name, data in (PICTURES | ROUNDED_TWICE).items():
        assert is_for_dali(data, LIMIT), name
    for data in (b"", b"hello", b"GIF89a" + bytes(50), PICTURES["odd"][:30], b"II*\0" + bytes(99)):
        assert not is_for_dali(data, LIMIT), data[:10]
    assert is_for_dali(PICTURES["640x480"], 640 * 480)
    assert not is_for_dali(PICTURES["640x480"], 640 * 480 - 1)
    longer = PICTURES["odd"] + bytes(1000)
    assert is_for_dali(longer, LIMIT)
    images, sizes = run(pipeline, longer)
    assert_same(images[0], sizes[0], longer, tolerance=1)


def test_dali_gets_no_truncated_jpeg_even_if_its_thumbnail_is_complete():
    thumbnail = b"Exif\0\0" + PICTURES["one pixel"]
    segment = b"\xff\xe1" + (2 + len(thumbnail)).to_bytes(2) + thumbnail
    for data in (PICTURES["odd"], PICTURES["progressive"]):
        complete = data[:2] + segment + data[2:]
        assert is_for_dali(complete, LIMIT)
        assert not is_for_dali(complete[: len(complete) // 2], LIMIT)
        assert not is_for_dali(complete[:-2], LIMIT)


def test_dali_fills_the_missing_part_of_a_jpeg_that_has_its_end_marker_with_grey(pipeline):
    """As viewers do. Python refuses it, but only decoding every picture twice would find that."""
    complete = encoded(300, 200)
    damaged = complete[: len(complete) // 2] + complete[-2:]
    with pytest.raises(UnreadableImageError, match="the JPEG picture is cut off"):
        decode(damaged, LIMIT)
    assert is_for_dali(damaged, LIMIT)
    images, sizes = run(pipeline, damaged)
    assert sizes[0].tolist() == [300, 200]
    expected, _ = letterbox(decode(complete, LIMIT), SIDE)
    assert np.abs(images[0, :200].astype(int) - expected[:200]).max() <= 1
    assert (images[0, 350:520] == 128).all()


def test_a_pipeline_for_gpus_is_written_without_a_gpu_and_a_written_one_works_as_before(pipeline, tmp_path):
    path = tmp_path / "model.dali"
    path.write_bytes(b"the one before")
    write_pipeline(path, SIDE, 128, 4)
    assert list(tmp_path.iterdir()) == [path]
    written = path.read_bytes()
    for name in WRITTEN:
        assert name in written
    assert b"_Shape" not in written.replace(b"PeekImageShape", b"")  # the CPU can't read the shape of pixels on a GPU
    read = Pipeline.deserialize(build_pipeline(SIDE, 8, 1, "cpu").serialize())
    assert read.max_batch_size == 8
    for found, expected in zip(run(read, PICTURES["odd"]), run(pipeline, PICTURES["odd"]), strict=True):
        assert np.array_equal(found, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not Path("/proc/driver/nvidia/version").exists(), reason="no driver of an NVIDIA GPU here")
def test_a_gpu_makes_nearly_the_same_squares(tmp_path):
    write_pipeline(tmp_path / "model.dali", SIDE, 8, 2)
    for pipeline in (build_pipeline(SIDE, 8, 2, "cuda"), Pipeline.deserialize(filename=str(tmp_path / "model.dali"))):
        for name, data in PICTURES.items():
            images, sizes = pipeline.run(encoded=[np.frombuffer(data, np.uint8)])
            expected, box = letterbox(decode(data, LIMIT), SIDE)
            assert sizes.as_array().tolist() == [[box.width, box.height]], name
            difference = np.abs(images.as_cpu().as_array()[0].astype(int) - expected)
            assert difference.mean() <= 1, name

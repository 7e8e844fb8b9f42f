"""Boxes and labels lie where the detections are, in a picture that otherwise stays what it was."""

import io

import numpy as np
import pytest
from PIL import Image

from serve_app.detection.drawing import draw
from serve_app.errors import NotAnImageError, UnreadableImageError
from serve_app.types import Detection

LIMIT = 10_000_000
WIDTH, HEIGHT = 320, 240
GREY = Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90))
# A red square in the upper left corner of a picture that is otherwise grey
MARKED = GREY.copy()
MARKED.paste((220, 20, 20), (0, 0, 80, 80))
CHANGED = 40  # more than what JPEG does to a plain area
ORIENTATION_TAG = 0x0112


def box(x1, y1, x2, y2, class_id=1, name="cat", confidence=0.9):
    return Detection(x1, y1, x2, y2, confidence, class_id, name)


MIDDLE = box(0.25, 0.5, 0.75, 0.9)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def drawn(picture, *detections):
    with Image.open(io.BytesIO(draw(picture, detections, LIMIT))) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        assert image.getexif().get(ORIENTATION_TAG, 1) == 1
        return np.asarray(image).astype(int)


def changes(picture, *detections):
    """Where the boxes have changed the picture."""
    return np.abs(drawn(picture, *detections) - drawn(picture)).max(axis=2) > CHANGED


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP"])
def test_a_picture_without_detections_stays_as_it_is(kind):
    found = drawn(encoded(MARKED, kind))
    assert found.shape == (HEIGHT, WIDTH, 3)
    assert np.abs(found - np.asarray(MARKED)).mean() < 2


def test_a_box_changes_the_picture_at_its_edges():
    changed = changes(encoded(GREY), MIDDLE)
    left, top, right, bottom = 80, 120, 240, 216
    for edge in (
        changed[top + 4 : bottom - 4, left - 4 : left + 5].any(axis=1),
        changed[top + 4 : bottom - 4, right - 4 : right + 5].any(axis=1),
        changed[top - 4 : top + 5, left + 4 : right - 4].any(axis=0),
        changed[bottom - 4 : bottom + 5, left + 4 : right - 4].any(axis=0),
    ):
        assert edge.all()


def test_a_box_leaves_what_is_inside_and_far_away_alone():
    changed = changes(encoded(GREY), MIDDLE)
    assert not changed[130:206, 90:230].any()  # inside
    assert not changed[:, :70].any()
    assert not changed[:, 250:].any()
    assert not changed[226:].any()
    assert not changed[:80].any()  # above the label


def test_a_box_has_a_label_above_its_corner_that_tells_class_and_score():
    changed = changes(encoded(GREY), MIDDLE)
    assert changed[95:115, 80:120].mean() > 0.5
    sure, unsure = (drawn(encoded(GREY), box(0.25, 0.5, 0.75, 0.9, confidence=score)) for score in (0.91, 0.32))
    dog = drawn(encoded(GREY), box(0.25, 0.5, 0.75, 0.9, name="dog"))
    for other in (unsure, dog):
        rows = np.nonzero(np.abs(sure - other).max(axis=2) > CHANGED)[0]
        assert rows.size
        assert rows.max() < 130


def test_every_detection_is_drawn_and_classes_have_different_colours():
    first, second = box(0.1, 0.3, 0.3, 0.9, class_id=0), box(0.6, 0.3, 0.9, 0.9, class_id=3)
    found = drawn(encoded(GREY), first, second)
    left, right = found[150, 32], found[150, 192]
    assert np.abs(left - 90).max() > CHANGED
    assert np.abs(right - 90).max() > CHANGED
    assert np.abs(left - right).max() > CHANGED


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_picture_is_upright_and_the_box_lies_in_the_upright_one(orientation):
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    found = drawn(encoded(MARKED, "JPEG", exif=exif, quality=95), MIDDLE)
    height, width = (WIDTH, HEIGHT) if orientation >= 5 else (HEIGHT, WIDTH)
    assert found.shape == (height, width, 3)
    down, right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    corner = found[height - 15 if down else 15, width - 15 if right else 15]
    assert corner[0] > 180
    assert corner[1:].max() < 80
    columns = slice(width // 4 - 4, width // 4 + 5)
    assert (np.abs(found[int(height * 0.7), columns] - 90).max(axis=1) > CHANGED).any()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (3, 2), (641, 479), (2000, 3)])
def test_pictures_of_odd_sizes_keep_them(kind, size):
    found = drawn(encoded(Image.new("RGB", size, (90, 90, 90)), kind), MIDDLE)
    assert found.shape[1::-1] == size


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "JPEG"), ("CMYK", "JPEG"), ("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG")]
)
def test_pictures_of_every_colour_space_are_drawn_in_colour(mode, kind):
    converted = {"P": lambda: MARKED.quantize(8), "LA": lambda: MARKED.convert("L").convert("LA")}
    source = converted.get(mode, lambda: MARKED.convert(mode))()
    picture = encoded(source, kind)
    assert np.abs(drawn(picture) - np.asarray(source.convert("RGB"))).mean() < 8
    edge = drawn(picture, MIDDLE)[170, 80]
    assert edge.max() - edge.min() > CHANGED
    assert changes(picture, MIDDLE).any()


@pytest.mark.parametrize(
    "odd",
    [
        box(0, 0, 1, 1),
        box(0.5, 0.5, 0.5, 0.5),
        box(0.9, 0.0, 1.0, 0.05),
        box(0.2, 0.2, 0.8, 0.8, class_id=10**6),
        box(0.2, 0.2, 0.8, 0.8, name="кошка 猫 " * 40),
        box(0.2, 0.2, 0.8, 0.8, name=""),
    ],
)
def test_detections_at_the_border_and_with_odd_names_are_drawn(odd):
    assert changes(encoded(GREY), odd).any()


def test_the_pixel_limit_is_honoured_to_the_last_pixel():
    picture = encoded(GREY)
    assert draw(picture, [MIDDLE], WIDTH * HEIGHT)
    with pytest.raises(UnreadableImageError, match="320x240 = 76800 pixels, over the limit of 76799"):
        draw(picture, [MIDDLE], WIDTH * HEIGHT - 1)


def test_bytes_that_are_no_picture_are_refused():
    with pytest.raises(NotAnImageError, match="the 5 bytes are no picture"):
        draw(b"hello", [MIDDLE], LIMIT)

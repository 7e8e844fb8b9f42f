"""Boxes and labels are drawn where the detections are, and the rest of the picture stays the same."""

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
# A red square in the upper left corner of a grey picture
MARKED = GREY.copy()
MARKED.paste((220, 20, 20), (0, 0, 80, 80))
CHANGED = 40  # more than JPEG changes a plain area
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
    """Where the boxes changed the picture."""
    return np.abs(drawn(picture, *detections) - drawn(picture)).max(axis=2) > CHANGED


def test_a_box_is_drawn_at_its_edges_and_nowhere_else():
    changed = changes(encoded(GREY), MIDDLE)
    left, top, right, bottom = 80, 120, 240, 216
    for edge in (
        changed[top + 4 : bottom - 4, left - 4 : left + 5].any(axis=1),
        changed[top + 4 : bottom - 4, right - 4 : right + 5].any(axis=1),
        changed[top - 4 : top + 5, left + 4 : right - 4].any(axis=0),
        changed[bottom - 4 : bottom + 5, left + 4 : right - 4].any(axis=0),
    ):
        assert edge.all()
    assert not changed[130:206, 90:230].any(), "inside"
    for outside in (changed[:, :70], changed[:, 250:], changed[226:], changed[:80]):
        assert not outside.any()


def test_the_label_above_the_box_shows_class_and_score():
    assert changes(encoded(GREY), MIDDLE)[95:115, 80:120].mean() > 0.5
    first, *others = (
        drawn(encoded(GREY), box(0.25, 0.5, 0.75, 0.9, confidence=score, name=name))
        for score, name in ((0.91, "cat"), (0.32, "cat"), (0.91, "dog"))
    )
    for other in others:
        rows = np.nonzero(np.abs(first - other).max(axis=2) > CHANGED)[0]
        assert rows.size
        assert rows.max() < 130


def test_every_detection_is_drawn_in_the_colour_of_its_class():
    first, second = box(0.1, 0.3, 0.3, 0.9, class_id=0), box(0.6, 0.3, 0.9, 0.9, class_id=3)
    found = drawn(encoded(GREY), first, second)
    left, right = found[150, 32], found[150, 192]
    for one, other in ((left, 90), (right, 90), (left, right)):
        assert np.abs(one - other).max() > CHANGED


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_picture_is_drawn_upright_with_its_boxes(orientation):
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


def test_pictures_of_every_format_colour_space_and_size_are_drawn_in_colour():
    converted = {"P": lambda: MARKED.quantize(8), "LA": lambda: MARKED.convert("L").convert("LA")}
    for mode, kind in (
        ("RGB", "JPEG"), ("RGB", "PNG"), ("RGB", "WEBP"), ("RGB", "BMP"), ("L", "JPEG"), ("CMYK", "JPEG"),
        ("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"),
    ):  # fmt: skip
        source = converted.get(mode, lambda mode=mode: MARKED.convert(mode))()
        picture = encoded(source, kind)
        assert np.abs(drawn(picture) - np.asarray(source.convert("RGB"))).mean() < 8, (mode, kind)
        edge = drawn(picture, MIDDLE)[170, 80]
        assert edge.max() - edge.min() > CHANGED, (mode, kind)
    for size in ((1, 1), (1, 90), (90, 1), (641, 479), (2000, 3)):
        assert drawn(encoded(Image.new("RGB", size)), MIDDLE).shape[1::-1] == size


def test_detections_at_the_border_and_with_unusual_names_are_drawn():
    for unusual in (
        box(0, 0, 1, 1),
        box(0.5, 0.5, 0.5, 0.5),
        box(0.9, 0.0, 1.0, 0.05),
        box(0.2, 0.2, 0.8, 0.8, class_id=10**6),
        box(0.2, 0.2, 0.8, 0.8, name="кошка 猫 " * 40),
        box(0.2, 0.2, 0.8, 0.8, name=""),
    ):
        assert changes(encoded(GREY), unusual).any(), unusual


def test_pictures_over_the_pixel_limit_and_other_files_are_refused():
    picture = encoded(GREY)
    assert draw(picture, [MIDDLE], WIDTH * HEIGHT)
    with pytest.raises(UnreadableImageError, match="320x240 = 76800 pixels, over the limit of 76799"):
        draw(picture, [MIDDLE], WIDTH * HEIGHT - 1)
    with pytest.raises(NotAnImageError, match="the 5 bytes are not a picture"):
        draw(b"hello", [MIDDLE], LIMIT)

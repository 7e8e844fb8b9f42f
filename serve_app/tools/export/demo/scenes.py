"""Draws the scenes that the demo detector is trained and evaluated on: pictures with their true boxes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm  # type: ignore[import-untyped]

from serve_app.tools.export.demo.backgrounds import BACKGROUNDS, Picture, add_clutter, flat
from serve_app.tools.export.demo.shapes import CLASS_NAMES, Stamp, cut_stamp, paint

MODEL_SIDE = 640
"""Pictures are letterboxed to this side; sizes in pixels refer to it."""

SHAPE_PX = (24.0, 250.0)
HELD_OUT_SIZES = ((640, 640), (640, 480), (480, 640), (1280, 720), (320, 320))

_MIN_VISIBLE = 0.65  # the share of a shape's area that other shapes must not cover


class Scene(NamedTuple):
    """A picture (H, W, 3, BGR), boxes (N, 4: x1 y1 x2 y2) of the visible parts of its shapes, and their classes."""

    image: Picture
    boxes: NDArray[np.float32]
    classes: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Canvas:
    """The picture so far, the number of the shape that owns each pixel (0: none), and the area of each shape."""

    picture: Picture
    owner: NDArray[np.uint8]
    areas: list[int]


def _hides_too_much(canvas: _Canvas, covered: NDArray[np.uint8]) -> bool:
    left = np.bincount(canvas.owner.ravel(), minlength=len(canvas.areas) + 1)[1:]
    taken = np.bincount(covered, minlength=len(canvas.areas) + 1)[1:]
    return any(
        hidden and rest - hidden < _MIN_VISIBLE * area
        for hidden, rest, area in zip(taken, left, canvas.areas, strict=True)
    )


def _place(rng: np.random.Generator, canvas: _Canvas, stamp: Stamp) -> bool:
    """Paint the shape at a random place where enough of the others stays visible; False if none was found."""
    height, width = stamp.cover.shape
    room_y, room_x = canvas.owner.shape[0] - height, canvas.owner.shape[1] - width
    solid = stamp.solid
    for _ in range(8):
        y, x = int(rng.integers(room_y + 1)), int(rng.integers(room_x + 1))
        window = np.s_[y : y + height, x : x + width]
        covered = canvas.owner[window][solid]
        # Mostly on free ground: overlaps must occur but be the exception.
        if (covered > 0).any() and (rng.random() < 0.6 or _hides_too_much(canvas, covered)):
            continue
        paint(rng, stamp, canvas.picture[window])
        canvas.areas.append(int(solid.sum()))
        canvas.owner[window][solid] = len(canvas.areas)
        return True
    return False


def _visible_box(owner: NDArray[np.uint8], number: int) -> tuple[float, float, float, float]:
    mine = owner == number
    rows, columns = np.flatnonzero(mine.any(axis=1)), np.flatnonzero(mine.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _finish(rng: np.random.Generator, picture: Picture) -> Picture:
    """Add the blur of a lens and the noise of a sensor to some pictures."""
    if rng.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 0.9)).astype(np.uint8)
    if rng.random() < 0.3:
        grain = rng.normal(0, rng.uniform(2, 9), picture.shape)
        picture = np.clip(picture + grain, 0, 255).astype(np.uint8)
    return picture


def _side_px(rng: np.random.Generator, limits: tuple[float, float], shorter: int) -> float:
    high = min(limits[1], 0.8 * shorter)
    low = min(limits[0], high)
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))


def draw_scene(
    seed: int | Sequence[int],
    size: tuple[int, int] = (MODEL_SIDE, MODEL_SIDE),
    *,
    unit: float | None = None,
    max_shapes: int = 12,
    plain: bool = False,
) -> Scene:
    """Draw the scene of this seed; `size` is (width, height).

    `unit` is the number of pixels that become one pixel at 640, by default as letterboxing scales the picture;
    1.0 draws a small picture like a crop of a large one. `plain` draws a flat background without clutter, blur
    and noise.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    unit = max(size) / MODEL_SIDE if unit is None else unit
    background = flat if plain else BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    picture = background(rng, width, height)
    if not plain and rng.random() < 0.4:
        add_clutter(rng, picture, unit)
    canvas = _Canvas(picture, np.zeros((height, width), np.uint8), [])
    classes: list[int] = []
    for _ in range(int(rng.integers(1, max_shapes + 1))):
        class_id = int(rng.integers(len(CLASS_NAMES)))
        side_px = _side_px(rng, (SHAPE_PX[0] * unit, SHAPE_PX[1] * unit), min(size))
        if _place(rng, canvas, cut_stamp(rng, class_id, side_px, unit)):
            classes.append(class_id)
    boxes = [_visible_box(canvas.owner, number) for number in range(1, len(classes) + 1)]
    image = canvas.picture if plain else _finish(rng, canvas.picture)
    return Scene(image, np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64))


def write_dataset(
    folder: Path,
    count: int,
    seed: int,
    *,
    sizes: Sequence[tuple[int, int]] = HELD_OUT_SIZES,
    unit: float | None = None,
    max_shapes: int = 12,
) -> Path:
    """Write `count` scenes in YOLO format, cycling through `sizes`, and return the path of their data.yaml."""
    images, labels = folder / "images", folder / "labels"
    for part in (images, labels):
        part.mkdir(parents=True)  # fails if the folder has scenes already
    for number in tqdm(range(count), desc=f"drawing {folder.name}", unit="scene", disable=None):
        size = sizes[number % len(sizes)]
        scene = draw_scene((seed, number), size, unit=unit, max_shapes=max_shapes)
        cv2.imwrite(str(images / f"{number:06}.jpg"), scene.image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        (labels / f"{number:06}.txt").write_text("".join(_label_lines(scene, size)))
    data = folder / "data.yaml"
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASS_NAMES))
    # Without `path`, so that the folder can be moved.
    data.write_text(f"train: images\nval: images\nnames:\n{names}")
    return data


def _label_lines(scene: Scene, size: tuple[int, int]) -> Iterator[str]:
    for (x1, y1, x2, y2), class_id in zip(scene.boxes.tolist(), scene.classes.tolist(), strict=True):
        centre = (x1 + x2) / 2 / size[0], (y1 + y2) / 2 / size[1]
        extent = (x2 - x1) / size[0], (y2 - y1) / size[1]
        yield " ".join([str(class_id), *(f"{value:.6f}" for value in (*centre, *extent))]) + "\n"

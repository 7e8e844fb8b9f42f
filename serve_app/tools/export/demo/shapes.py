"""The shapes that the demo detector knows: their names and outlines, and how one is painted onto a picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from serve_app.tools.export.demo.backgrounds import Colour, Picture, random_colour

Polygon = NDArray[np.float64]
"""(N, 2) points x, y; y grows downwards."""

Mask = NDArray[np.uint8]
Surface = NDArray[np.float64]

_MIN_CONTRAST = 95.0  # distance in BGR between a shape and what it is drawn on
_OUTLINE_ONLY_FROM_PX = 36.0  # smaller outlines merge into blobs


def _around(radius: float, start: float, stop: float, points: int) -> Polygon:
    """Points on a circle about the origin from one angle to another, both included."""
    angles = np.linspace(start, stop, points)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _regular(corners: int) -> Polygon:
    return _around(1.0, 0.0, 2 * math.pi, corners + 1)[:-1]


def _circle() -> Polygon:
    return _regular(64)


def _square() -> Polygon:
    half = math.sqrt(0.5)
    return np.array([(half, half), (-half, half), (-half, -half), (half, -half)])


def _triangle() -> Polygon:
    return _regular(3)


def _star() -> Polygon:
    points = _regular(10)
    points[1::2] *= 0.42
    return points


def _cross() -> Polygon:
    arm, reach = 0.32, 0.95
    quarter = np.array([(reach, arm), (arm, arm), (arm, reach)])
    return np.concatenate([rotated(quarter, turn * math.pi / 2, 1.0) for turn in range(4)])


def _heart() -> Polygon:
    t = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t)
    return np.stack([x / 16.5, (y + 2.5) / 16.5], axis=1)


def _arrow() -> Polygon:
    return np.array([(1.0, 0.0), (0.1, -0.75), (0.1, -0.28), (-0.95, -0.28), (-0.95, 0.28), (0.1, 0.28), (0.1, 0.75)])


def _moon() -> Polygon:
    """A disc minus a second disc to its right: two arcs between the intersections of their circles."""
    offset, radius = 0.55, 0.8
    meet = math.acos((1 + offset**2 - radius**2) / (2 * offset))
    inner = math.atan2(math.sin(meet), math.cos(meet) - offset)
    outside = _around(1.0, meet, 2 * math.pi - meet, 40)
    inside = _around(radius, 2 * math.pi - inner, inner, 32)[1:-1]
    return np.concatenate([outside, np.array([offset, 0.0]) + inside])


_OUTLINES: dict[str, Callable[[], Polygon]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "heart": _heart,
    "arrow": _arrow,
    "moon": _moon,
}

CLASS_NAMES: tuple[str, ...] = tuple(_OUTLINES)
"""Class names in the order of their class numbers."""


def outline(class_id: int) -> Polygon:
    """The shape's polygon at angle 0, about the size of the unit disc."""
    return _OUTLINES[CLASS_NAMES[class_id]]()


def rotated(polygon: Polygon, angle: float, squeeze: float) -> Polygon:
    """The polygon squeezed along y by a factor, then rotated by an angle in radians."""
    x, y = polygon[:, 0], polygon[:, 1] * squeeze
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.stack([x * cosine - y * sine, x * sine + y * cosine], axis=1)


@dataclass(frozen=True, slots=True)
class Stamp:
    """A shape ready to be painted: the coverage of each pixel (0-255), and the part of it that is border."""

    cover: Mask
    border: Mask

    @property
    def solid(self) -> NDArray[np.bool_]:
        """The pixels that are more than half covered."""
        return self.cover > 127


def _fill(polygon: Polygon, side: int) -> Mask:
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [np.round(polygon * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return mask


def _stroke(polygon: Polygon, side: int, thickness: int) -> Mask:
    mask = np.zeros((side, side), np.uint8)
    points = [np.round(polygon * 16).astype(np.int32)]
    cv2.polylines(mask, points, isClosed=True, color=255, thickness=thickness, lineType=cv2.LINE_AA, shift=4)
    return mask


def cut_stamp(rng: np.random.Generator, class_id: int, side_px: float, unit: float) -> Stamp:
    """Draw a shape whose longer side has `side_px` pixels, with random rotation and style."""
    polygon = rotated(outline(class_id), rng.uniform(0, 2 * math.pi), rng.uniform(0.85, 1.0))
    polygon -= polygon.min(axis=0)
    polygon *= side_px / polygon.max()
    side = math.ceil(side_px) + 4
    polygon += 1.5 + rng.uniform(0, 1, 2)
    cover = _fill(polygon, side)
    thickness = max(2, round(side_px * rng.uniform(0.05, 0.1)))
    # Drawn twice as thick and clipped to the shape, so that a border never makes the shape larger.
    border = np.minimum(cover, _stroke(polygon, side, 2 * thickness))
    style = rng.choice(["filled", "bordered", "outline"], p=[0.5, 0.3, 0.2])
    if style == "outline" and side_px >= _OUTLINE_ONLY_FROM_PX * unit:
        return _trim(border, np.zeros_like(border))
    return _trim(cover, border if style == "bordered" else np.zeros_like(border))


def _trim(cover: Mask, border: Mask) -> Stamp:
    rows, columns = np.flatnonzero(cover.max(axis=1) > 127), np.flatnonzero(cover.max(axis=0) > 127)
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Stamp(cover[window], border[window])


def _contrasting(rng: np.random.Generator, ground: Colour) -> Colour:
    """A random colour with enough contrast to the ground, or the best of ten."""
    colours = [random_colour(rng) for _ in range(10)]
    contrasts = [float(np.linalg.norm(colour - ground)) for colour in colours]
    enough = (number for number, contrast in enumerate(contrasts) if contrast >= _MIN_CONTRAST)
    return colours[next(enough, int(np.argmax(contrasts)))]


def _surface(rng: np.random.Generator, colour: Colour, height: int, width: int) -> Surface:
    """Flat, shaded or grainy colour for the inside of a shape."""
    kind = rng.choice(["flat", "shaded", "grainy"], p=[0.5, 0.3, 0.2])
    surface = np.broadcast_to(colour, (height, width, 3)).astype(np.float64)
    if kind == "shaded":
        ramp = np.linspace(-1, 1, height)[:, None, None] * rng.uniform(-1, 1)
        ramp = ramp + np.linspace(-1, 1, width)[None, :, None] * rng.uniform(-1, 1)
        return surface + 22 * ramp
    if kind == "grainy":
        return surface + rng.normal(0, rng.uniform(5, 16), (height, width, 3))
    return surface


def _mixed(under: Surface, over: Surface, mask: Mask) -> Surface:
    share = mask[..., None].astype(np.float64) / 255.0
    return np.add(under * (1 - share), over * share)


def paint(rng: np.random.Generator, stamp: Stamp, region: Picture) -> None:
    height, width = stamp.cover.shape
    ground = region.astype(np.float64)
    colour = _contrasting(rng, ground[stamp.solid].mean(axis=0))
    painted = _surface(rng, colour, height, width)
    if stamp.border.any():
        painted = _mixed(painted, np.broadcast_to(_contrasting(rng, colour), painted.shape), stamp.border)
    region[:] = np.clip(_mixed(ground, painted, stamp.cover), 0, 255).astype(np.uint8)

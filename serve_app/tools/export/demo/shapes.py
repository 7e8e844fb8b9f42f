"""The shapes that the demo detector knows: their names, and their outlines as polygons about the origin."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Polygon = NDArray[np.float64]
"""(N, 2) points x, y; y grows downwards."""


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
    return np.concatenate([turned(quarter, turn * math.pi / 2, 1.0) for turn in range(4)])


def _heart() -> Polygon:
    t = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t)
    return np.stack([x / 16.5, (y + 2.5) / 16.5], axis=1)


def _arrow() -> Polygon:
    return np.array([(1.0, 0.0), (0.1, -0.75), (0.1, -0.28), (-0.95, -0.28), (-0.95, 0.28), (0.1, 0.28), (0.1, 0.75)])


def _moon() -> Polygon:
    """A disc less a second disc, moved to the right: two arcs between the points where the circles meet."""
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
    """The shape's polygon at angle 0, about as large as the unit disc."""
    return _OUTLINES[CLASS_NAMES[class_id]]()


def turned(polygon: Polygon, angle: float, squeeze: float) -> Polygon:
    """The polygon squeezed along y by a factor, then rotated by an angle in radians."""
    x, y = polygon[:, 0], polygon[:, 1] * squeeze
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.stack([x * cosine - y * sine, x * sine + y * cosine], axis=1)

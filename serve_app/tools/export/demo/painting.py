"""How one shape gets onto a picture: its stamp (which pixels it covers), its colours and its surface."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from serve_app.tools.export.demo.backgrounds import Colour, Picture, random_colour
from serve_app.tools.export.demo.shapes import Polygon, outline, turned

Mask = NDArray[np.uint8]
Surface = NDArray[np.float64]

_MIN_CONTRAST = 95.0  # distance in BGR between a shape and what it is drawn on
_OUTLINE_ONLY_FROM_PX = 36.0  # smaller outlines run together into blobs


@dataclass(frozen=True, slots=True)
class Stamp:
    """A shape ready to be painted: how much of each pixel it covers, and how much of that is its border."""

    cover: Mask
    border: Mask

    @property
    def solid(self) -> NDArray[np.bool_]:
        """The pixels that count as the shape's own."""
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
    """Draw a shape whose longer side has `side_px` pixels, turned at random, in a style chosen at random."""
    polygon = turned(outline(class_id), rng.uniform(0, 2 * math.pi), rng.uniform(0.85, 1.0))
    polygon -= polygon.min(axis=0)
    polygon *= side_px / polygon.max()
    side = math.ceil(side_px) + 4
    polygon += 1.5 + rng.uniform(0, 1, 2)
    cover = _fill(polygon, side)
    thickness = max(2, round(side_px * rng.uniform(0.05, 0.1)))
    # Twice the thickness, of which the inner half stays: a border never makes the shape larger.
    border = np.minimum(cover, _stroke(polygon, side, 2 * thickness))
    style = rng.choice(["filled", "bordered", "outline"], p=[0.5, 0.3, 0.2])
    if style == "outline" and side_px >= _OUTLINE_ONLY_FROM_PX * unit:
        return _trimmed(border, np.zeros_like(border))
    return _trimmed(cover, border if style == "bordered" else np.zeros_like(border))


def _trimmed(cover: Mask, border: Mask) -> Stamp:
    rows, columns = np.flatnonzero(cover.max(axis=1) > 127), np.flatnonzero(cover.max(axis=0) > 127)
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Stamp(cover[window], border[window])


def _contrasting(rng: np.random.Generator, ground: Colour) -> Colour:
    """A random colour that can be told from the ground, or the best of ten."""
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

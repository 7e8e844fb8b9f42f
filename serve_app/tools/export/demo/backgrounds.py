"""Backgrounds of the demo scenes, and clutter that belongs to no class."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""(H, W, 3) BGR."""

Colour = NDArray[np.float64]

# Without letters that look like a circle, a cross, a moon, a triangle or an arrow.
_LETTERS = "BEFGHKMNRSWZ3456789"


def random_colour(rng: np.random.Generator) -> Colour:
    return rng.uniform(0, 255, 3)


def _near(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    return np.clip(colour + rng.uniform(-spread, spread, 3), 0, 255)


def _as_picture(values: NDArray[Any]) -> Picture:
    return np.clip(values, 0, 255).astype(np.uint8)


def flat(rng: np.random.Generator, width: int, height: int) -> Picture:
    return _as_picture(np.broadcast_to(random_colour(rng), (height, width, 3)))


def gradient(rng: np.random.Generator, width: int, height: int) -> Picture:
    angle = rng.uniform(0, 2 * math.pi)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    along = xs * math.cos(angle) + ys * math.sin(angle)
    share = ((along - along.min()) / max(float(np.ptp(along)), 1.0))[..., None]
    start = random_colour(rng)
    stop = _near(rng, start, 130)
    return _as_picture(start * (1 - share) + stop * share)


def noise(rng: np.random.Generator, width: int, height: int) -> Picture:
    """Noise in grains of one to eight pixels."""
    grain = int(rng.integers(1, 9))
    rows, columns = -(-height // grain), -(-width // grain)
    grains = random_colour(rng) + rng.normal(0, rng.uniform(8, 28), (rows, columns, 3))
    big = cv2.resize(_as_picture(grains), (columns * grain, rows * grain), interpolation=cv2.INTER_LINEAR)
    return _as_picture(big[:height, :width])


def stripes(rng: np.random.Generator, width: int, height: int) -> Picture:
    angle, period = rng.uniform(0, math.pi), rng.uniform(8, 60)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    wave = np.sin((xs * math.cos(angle) + ys * math.sin(angle)) * (2 * math.pi / period))
    share = np.clip(wave * 4 + 0.5, 0, 1)[..., None]
    base = random_colour(rng)
    return _as_picture(base * (1 - share) + _near(rng, base, 70) * share)


def blobs(rng: np.random.Generator, width: int, height: int) -> Picture:
    """A few random colours, blurred into one another."""
    cells = int(rng.integers(3, 9))
    base = random_colour(rng)
    spots = np.clip(base + rng.uniform(-80, 80, (cells, cells, 3)), 0, 255)
    return _as_picture(cv2.resize(spots.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC))


BACKGROUNDS: tuple[Callable[[np.random.Generator, int, int], Picture], ...] = (
    flat,
    gradient,
    noise,
    stripes,
    blobs,
)


def _ink(rng: np.random.Generator) -> tuple[float, float, float]:
    blue, green, red = random_colour(rng)
    return blue, green, red


def _trace(rng: np.random.Generator, picture: Picture, points: NDArray[np.float64], thickness: float) -> None:
    path = [points.astype(np.int32)]
    cv2.polylines(picture, path, False, _ink(rng), max(1, round(thickness)), cv2.LINE_AA)


def _line(rng: np.random.Generator, picture: Picture, unit: float) -> None:
    height, width = picture.shape[:2]
    points = np.stack([rng.uniform(0, width, 2), rng.uniform(0, height, 2)], axis=1)
    _trace(rng, picture, points, rng.uniform(1, 7) * unit)


def _scribble(rng: np.random.Generator, picture: Picture, unit: float) -> None:
    height, width = picture.shape[:2]
    steps = rng.normal(0, 22 * unit, (int(rng.integers(4, 9)), 2))
    start = np.array([rng.uniform(0, width), rng.uniform(0, height)])
    _trace(rng, picture, start + np.cumsum(steps, axis=0), rng.uniform(1, 3) * unit)


def _word(rng: np.random.Generator, picture: Picture, unit: float) -> None:
    height, width = picture.shape[:2]
    text = "".join(rng.choice(list(_LETTERS), int(rng.integers(1, 6))))
    corner = (int(rng.uniform(0, width * 0.8)), int(rng.uniform(height * 0.1, height)))
    scale, thickness = rng.uniform(0.5, 2.4) * unit, max(1, round(rng.uniform(1, 4) * unit))
    cv2.putText(picture, text, corner, cv2.FONT_HERSHEY_SIMPLEX, scale, _ink(rng), thickness, cv2.LINE_AA)


def add_clutter(rng: np.random.Generator, picture: Picture, unit: float) -> None:
    """Draw one to five things of no class; `unit` is the number of pixels that become one pixel at 640."""
    draws = (_line, _scribble, _word)
    for _ in range(int(rng.integers(1, 6))):
        draws[int(rng.integers(len(draws)))](rng, picture, unit)

"""Compares detections: two sides are measured against each other only if they find the same."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from serve_app.clients.detection.rest import FIELDS
from serve_app.errors import ServeAppError
from serve_app.types import Detection


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far two detections of one object may lie apart."""

    min_iou: float
    max_score_difference: float


EXACT = Tolerance(0.99, 0.01)
ROUNDED = Tolerance(0.9, 0.05)  # for engines that compute in bf16 or int8


def as_rows(detections: Sequence[Detection]) -> list[dict[str, Any]]:
    """As the REST endpoints return them."""
    return [dict(zip(FIELDS, astuple(one), strict=True)) for one in detections]


def differences(
    expected: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], tolerance: Tolerance = EXACT
) -> list[str]:
    problems = []
    if len(expected) != len(found):
        problems.append(f"{len(found)} detections instead of {len(expected)}")
    for one, other in zip(expected, found, strict=False):
        if one["class"] != other["class"]:
            problems.append(f"{other['class_name']} instead of {one['class_name']}")
        elif overlap(one, other) < tolerance.min_iou:
            problems.append(f"a {one['class_name']} with IoU {overlap(one, other):.3f}")
        elif abs(one["confidence"] - other["confidence"]) > tolerance.max_score_difference:
            problems.append(f"a {one['class_name']} of {other['confidence']:.3f} instead of {one['confidence']:.3f}")
    return problems


def require_equal(
    expected: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], name: str, tolerance: Tolerance = EXACT
) -> None:
    if problems := differences(expected, found, tolerance):
        raise ServeAppError(f"{name} gives other detections than the service: {'; '.join(problems)}")


def overlap(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Intersection over union."""
    width = min(one["x2"], other["x2"]) - max(one["x1"], other["x1"])
    height = min(one["y2"], other["y2"]) - max(one["y1"], other["y1"])
    shared = max(0.0, width) * max(0.0, height)
    areas = sum((box["x2"] - box["x1"]) * (box["y2"] - box["y1"]) for box in (one, other))
    return float(shared / (areas - shared)) if areas > shared else 0.0

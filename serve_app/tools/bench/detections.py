"""Compares detections: two sides are measured against each other only if they find the same."""

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from serve_app.clients.detection.rest import FIELDS
from serve_app.errors import ServeAppError
from serve_app.types import Detection

MIN_IOU, MAX_SCORE_DIFFERENCE = 0.99, 0.01


def as_rows(detections: Sequence[Detection]) -> list[dict[str, Any]]:
    """As the REST endpoints return them."""
    return [dict(zip(FIELDS, astuple(one), strict=True)) for one in detections]


def differences(expected: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> list[str]:
    problems = []
    if len(expected) != len(found):
        problems.append(f"{len(found)} detections instead of {len(expected)}")
    for one, other in zip(expected, found, strict=False):
        if one["class"] != other["class"]:
            problems.append(f"{other['class_name']} instead of {one['class_name']}")
        elif overlap(one, other) < MIN_IOU or abs(one["confidence"] - other["confidence"]) > MAX_SCORE_DIFFERENCE:
            problems.append(f"a {one['class_name']} with IoU {overlap(one, other):.3f}")
    return problems


def require_equal(expected: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], name: str) -> None:
    if problems := differences(expected, found):
        raise ServeAppError(f"{name} gives other detections than the service: {'; '.join(problems)}")


def overlap(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Intersection over union."""
    width = min(one["x2"], other["x2"]) - max(one["x1"], other["x1"])
    height = min(one["y2"], other["y2"]) - max(one["y1"], other["y1"])
    shared = max(0.0, width) * max(0.0, height)
    areas = sum((box["x2"] - box["x1"]) * (box["y2"] - box["y1"]) for box in (one, other))
    return float(shared / (areas - shared)) if areas > shared else 0.0

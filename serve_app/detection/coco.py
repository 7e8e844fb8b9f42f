"""Detections in COCO's format, with boxes in pixels."""

from collections.abc import Iterable, Sequence
from typing import Any

from serve_app.types import Detection

Row = tuple[str, int, int, Sequence[Detection]]  # a picture's name, width, height and detections


def coco_of(rows: Iterable[Row]) -> dict[str, Any]:
    """Build the images, categories, and annotations with scores."""
    categories: dict[int, str] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (name, width, height, detections) in enumerate(rows, 1):
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        for found in detections:
            categories[found.class_id] = found.class_name
            annotations.append({"id": len(annotations) + 1, "image_id": number} | _annotation(found, width, height))
    named = [{"id": identity, "name": name} for identity, name in sorted(categories.items())]
    return {"images": images, "categories": named, "annotations": annotations}


def _annotation(found: Detection, width: int, height: int) -> dict[str, Any]:
    left, top = found.x1 * width, found.y1 * height
    across, down = found.x2 * width - left, found.y2 * height - top
    return {
        "category_id": found.class_id,
        "bbox": [round(value, 2) for value in (left, top, across, down)],
        "area": round(across * down, 2),
        "iscrowd": 0,
        "score": round(found.confidence, 5),
    }

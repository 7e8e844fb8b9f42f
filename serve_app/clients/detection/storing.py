"""Detections as files: annotated pictures, plain JSON, and COCO's format."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from serve_app.detection.drawing import draw
from serve_app.types import Detection, PictureResult

MAX_PIXELS = 64_000_000


def store_drawn(path: Path, result: PictureResult, folder: Path) -> None:
    """As a JPEG under the picture's name."""
    drawn = draw(path.read_bytes(), result.detections, MAX_PIXELS)
    (folder / f"{path.name if path.suffix.lower() == '.jpg' else f'{path.name}.jpg'}").write_bytes(drawn)


def json_of(results: Mapping[Path, PictureResult]) -> str:
    """For each picture its size, its detections (boxes in fractions of it) and its times."""
    pictures = [
        {
            "file": path.name,
            "width": result.width,
            "height": result.height,
            "detections": [asdict(found) for found in result.detections],
            "timing_ms": asdict(result.times),
        }
        for path, result in results.items()
    ]
    return json.dumps({"pictures": pictures}, indent=1)


def coco_of(results: Mapping[Path, PictureResult]) -> str:
    """Images, categories and annotations with scores; boxes are x, y, width and height in pixels."""
    categories: dict[int, str] = {}
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number, (path, result) in enumerate(results.items(), 1):
        images.append({"id": number, "file_name": path.name, "width": result.width, "height": result.height})
        for found in result.detections:
            categories[found.class_id] = found.class_name
            annotations.append(_annotation(len(annotations) + 1, number, result, found))
    named = [{"id": identity, "name": name} for identity, name in sorted(categories.items())]
    return json.dumps({"images": images, "categories": named, "annotations": annotations}, indent=1)


def _annotation(identity: int, image: int, result: PictureResult, found: Detection) -> dict[str, object]:
    left, top = found.x1 * result.width, found.y1 * result.height
    width, height = found.x2 * result.width - left, found.y2 * result.height - top
    return {
        "id": identity,
        "image_id": image,
        "category_id": found.class_id,
        "bbox": [round(value, 2) for value in (left, top, width, height)],
        "area": round(width * height, 2),
        "iscrowd": 0,
        "score": round(found.confidence, 5),
    }

"""Detections as files: annotated pictures, plain JSON, and COCO's format."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from serve_app.detection.coco import coco_of
from serve_app.detection.drawing import draw
from serve_app.settings import MAX_PIXELS
from serve_app.types import PictureResult


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


def coco_json_of(results: Mapping[Path, PictureResult]) -> str:
    rows = ((path.name, result.width, result.height, result.detections) for path, result in results.items())
    return json.dumps(coco_of(rows), indent=1)

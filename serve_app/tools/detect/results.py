"""Results of `scripts/detect`: annotated pictures, JSON, COCO, and a summary."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from serve_app.detection.coco import coco_of
from serve_app.detection.drawing import draw
from serve_app.types import MAX_PIXELS, PictureResult

CLASSES_SHOWN = 10


def write_annotated(path: Path, result: PictureResult, folder: Path) -> None:
    """A JPEG with the name of the picture."""
    drawn = draw(path.read_bytes(), result.detections, MAX_PIXELS)
    (folder / f"{path.name if path.suffix.lower() == '.jpg' else f'{path.name}.jpg'}").write_bytes(drawn)


def as_json(results: Mapping[Path, PictureResult]) -> str:
    """Size, detections (boxes as fractions of the picture) and times of each picture."""
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


def as_coco(results: Mapping[Path, PictureResult]) -> str:
    rows = ((path.name, result.width, result.height, result.detections) for path, result in results.items())
    return json.dumps(coco_of(rows), indent=1)


def format_summary(took_ms: Sequence[float], total: int, results: Sequence[PictureResult], wall_s: float) -> str:
    rows = [
        ("pictures", str(total)),
        ("failed or not done", str(total - len(results))),
        ("wall time", f"{wall_s:.2f} s ({len(results) / wall_s:.1f} pictures/s)"),
    ]
    if took_ms:
        p50, p90, p99 = np.percentile(took_ms, (50, 90, 99))
        rows.append(("inference time", f"p50 {p50:.1f} ms, p90 {p90:.1f} ms, p99 {p99:.1f} ms"))
    names = Counter(found.class_name for result in results for found in result.detections)
    shown = ", ".join(f"{count} {name}" for name, count in names.most_common(CLASSES_SHOWN))
    more = f" and {len(names) - CLASSES_SHOWN} more classes" if len(names) > CLASSES_SHOWN else ""
    rows.append(("detections", f"{names.total()}{': ' if shown else ''}{shown}{more}"))
    return "\n".join(f"  {name:<22}{value}" for name, value in rows)

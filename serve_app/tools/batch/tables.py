"""The two tables of Parquet: pictures with their detections, and unreadable pictures with the reason."""

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet

from serve_app.detection.coco import coco_of
from serve_app.tools.batch.places import Place
from serve_app.tools.batch.plan import DETECTIONS, ERRORS, Shard
from serve_app.types import Detection, PictureResult

DETECTION = arrow.struct(
    [
        *((name, arrow.float32()) for name in ("x1", "y1", "x2", "y2", "confidence")),
        ("class_id", arrow.int32()),
        ("class_name", arrow.string()),
    ]
)
FOUND = arrow.schema(
    [
        ("picture", arrow.string()),
        ("width", arrow.int32()),
        ("height", arrow.int32()),
        ("detections", arrow.list_(DETECTION)),
    ]
)
FAILED = arrow.schema([("picture", arrow.string()), ("status", arrow.int32()), ("error", arrow.string())])


def store(shard: Shard, results: Mapping[str, PictureResult], place: Place) -> tuple[int, int]:
    """Return how many pictures succeeded and failed. The detections come last: they mark the shard as done."""
    good = {name: result for name, result in results.items() if result.error is None}
    bad = {name: result for name, result in results.items() if result.error is not None}
    rows: list[dict[str, Any]]
    if bad:
        rows = [{"picture": name, "status": one.error_status, "error": one.error} for name, one in bad.items()]
        (place / ERRORS / shard.file).write(_parquet(rows, FAILED))
    else:
        (place / ERRORS / shard.file).remove()  # left by an interrupted run
    rows = [
        {"picture": name, "width": one.width, "height": one.height, "detections": list(map(asdict, one.detections))}
        for name, one in good.items()
    ]
    (place / DETECTIONS / shard.file).write(_parquet(rows, FOUND))
    return len(good), len(bad)


def _parquet(rows: list[dict[str, Any]], schema: arrow.Schema) -> bytes:
    content = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(rows, schema), content)
    return content.getvalue()


def rows_of(place: Place, table: str) -> Iterable[dict[str, Any]]:
    for path in (place / table).files():
        if path.endswith(".parquet"):
            yield from parquet.read_table(path, filesystem=place.system).to_pylist()


def write_coco(place: Place, target: Place) -> None:
    rows = (
        (row["picture"], row["width"], row["height"], [Detection(**found) for found in row["detections"]])
        for row in rows_of(place, DETECTIONS)
    )
    target.write(json.dumps(coco_of(rows)).encode())

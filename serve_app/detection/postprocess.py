"""Turns an engine's output into detections on the original picture, as ultralytics does."""

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from serve_app.detection.preprocess import Letterbox
from serve_app.errors import InvalidRequestError
from serve_app.types import Detection, Thresholds

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]


def require_classes(thresholds: Thresholds, labels: Sequence[str]) -> None:
    """A class that the model doesn't know would be found on no picture."""
    unknown = [number for number in thresholds.classes or () if number >= len(labels)]
    if unknown:
        raise InvalidRequestError(f"classes must be from 0 to {len(labels) - 1} for this model, got {unknown[0]}")


def suppress(output: Floats, thresholds: Thresholds) -> tuple[Floats, Floats, Ints]:
    """NMS of one picture's raw head: boxes (x1 y1 x2 y2 in engine pixels), scores and classes, best first."""
    if output.shape[-1] == 6:  # an end-to-end head: rows are final and sorted
        rows = output[output[:, 4] > thresholds.confidence]
        return keep_wanted(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int32), thresholds)
    best = output[4:].max(axis=0)
    candidates = np.flatnonzero(best > thresholds.confidence)
    if candidates.size == 0:
        return np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32)
    rows = output[:, candidates]
    scores, labels = best[candidates], rows[4:].argmax(axis=0).astype(np.int32)
    half = rows[2:4] / 2
    boxes = np.concatenate((rows[:2] - half, rows[:2] + half)).T
    if thresholds.classes is not None:
        wanted = np.isin(labels, thresholds.classes)
        boxes, scores, labels = boxes[wanted], scores[wanted], labels[wanted]
    kept = _suppress_overlaps(boxes, scores, labels, thresholds)
    return boxes[kept], scores[kept], labels[kept]


def _suppress_overlaps(boxes: Floats, scores: Floats, labels: Ints, thresholds: Thresholds) -> Ints:
    corner_and_size = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)
    kept = cv2.dnn.NMSBoxesBatched(
        corner_and_size, scores, labels, thresholds.confidence, thresholds.iou  # type: ignore[arg-type]
    )  # fmt: skip
    order = np.asarray(kept, np.int32)
    return order[np.argsort(-scores[order], kind="stable")][: thresholds.max_detections]


def keep_wanted(boxes: Floats, scores: Floats, labels: Ints, thresholds: Thresholds) -> tuple[Floats, Floats, Ints]:
    """Apply the requested classes and maximum to rows that are already suppressed and sorted."""
    if thresholds.classes is not None:
        wanted = np.isin(labels, thresholds.classes)
        boxes, scores, labels = boxes[wanted], scores[wanted], labels[wanted]
    limit = thresholds.max_detections
    return boxes[:limit], scores[:limit], labels[:limit]


def to_detections(
    boxes: Floats, scores: Floats, labels: Ints, box: Letterbox, names: Sequence[str]
) -> tuple[Detection, ...]:
    """Undo the letterbox; boxes are fractions of the original picture."""
    origin = np.array([box.left, box.top] * 2, np.float32)
    extent = np.array([box.inner_width, box.inner_height] * 2, np.float32)
    fractions = np.clip((boxes - origin) / extent, 0.0, 1.0)
    return tuple(
        Detection(x1, y1, x2, y2, score, label, names[label] if label < len(names) else str(label))
        for (x1, y1, x2, y2), score, label in zip(fractions.tolist(), scores.tolist(), labels.tolist(), strict=True)
    )

"""Compares detections with ultralytics' own: pairs of boxes, and how far a pair may differ."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from serve_app.tools.bench.detections import as_rows, overlap
from serve_app.types import Detection, Thresholds

MIN_PAIR_IOU = 0.5  # boxes that overlap less are different objects


@dataclass(frozen=True, slots=True)
class Expected:
    """What ultralytics' predictor finds in a picture, and all candidates before NMS."""

    detections: Sequence[Detection]
    candidates: Sequence[Detection]


@dataclass(frozen=True, slots=True)
class Limits:
    """Within `margin` of the threshold a box may be found or not."""

    iou: float
    score: float
    margin: float


FULL = Limits(iou=0.99, score=0.01, margin=0.0)
REDUCED = Limits(iou=0.95, score=0.05, margin=0.05)


def limits_of(precision: str) -> Limits:
    return FULL if precision == "f32" else REDUCED


@dataclass(slots=True)
class Difference:
    """Over all pictures that were compared."""

    limits: Limits
    thresholds: Thresholds
    pictures: int = 0
    boxes: int = 0  # of the reference
    matched: int = 0
    unmatched: int = 0  # on both sides, without those near the threshold
    ties: int = 0  # matched with a candidate of nearly the same score
    worst_iou: float | None = None  # of matched boxes, None without any
    worst_score: float | None = None

    def add(self, expected: Expected, found: Sequence[Detection]) -> None:
        """Pairs each expected box with the found box of its class that overlaps most."""
        self.pictures += 1
        self.boxes += len(expected.detections)
        free, unpaired = list(found), []
        for one in expected.detections:
            other = max((o for o in free if o.class_id == one.class_id), key=partial(iou_of, one), default=None)
            if other is None or iou_of(one, other) < MIN_PAIR_IOU:
                unpaired.append(one)
                continue
            free.remove(other)
            self._pair(one, other, expected.candidates)
        threshold, margin = self.thresholds.confidence, self.limits.margin
        self.unmatched += sum(abs(one.confidence - threshold) >= margin for one in (*unpaired, *free))

    def _pair(self, one: Detection, other: Detection, candidates: Sequence[Detection]) -> None:
        """A rounding decides which of two nearly equal candidates NMS keeps, so either is accepted."""
        if not self._is_close(one, other):
            rival = max(self._rivals(one, candidates), key=partial(iou_of, other), default=one)
            if self._is_close(rival, other):
                self.ties += 1
                one = rival
        iou, score = iou_of(one, other), abs(one.confidence - other.confidence)
        self.matched += 1
        self.worst_iou = iou if self.worst_iou is None else min(self.worst_iou, iou)
        self.worst_score = score if self.worst_score is None else max(self.worst_score, score)

    def _is_close(self, one: Detection, other: Detection) -> bool:
        apart = abs(one.confidence - other.confidence)
        return iou_of(one, other) >= self.limits.iou and apart <= self.limits.score

    def _rivals(self, one: Detection, candidates: Sequence[Detection]) -> Iterator[Detection]:
        """The candidates that this box suppressed and whose scores are within the limit of its own."""
        for rival in candidates:
            is_close = rival.class_id == one.class_id and 0 <= one.confidence - rival.confidence <= self.limits.score
            if is_close and iou_of(one, rival) > self.thresholds.iou:
                yield rival

    def problems(self) -> Iterator[str]:
        if self.worst_iou is None or self.worst_score is None:
            yield f"none of {self.boxes} boxes matched"
            return
        if self.unmatched:
            yield f"{self.unmatched} boxes are unmatched"
        if self.worst_iou < self.limits.iou:
            yield f"worst IoU {self.worst_iou:.4f} is below {self.limits.iou:g}"
        if self.worst_score > self.limits.score:
            yield f"worst score difference {self.worst_score:.4f} is above {self.limits.score:g}"


def iou_of(one: Detection, other: Detection) -> float:
    """Boxes are fractions of the picture."""
    return overlap(*as_rows((one, other)))

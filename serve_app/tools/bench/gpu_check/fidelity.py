"""When detections are ultralytics' own: boxes paired with those of the reference, and how far a pair may be apart."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from serve_app.tools.bench.tracks import as_rows, overlap
from serve_app.types import Detection, Thresholds

LEAST_OVERLAP = 0.5  # of a pair: what overlaps less is another object


@dataclass(frozen=True, slots=True)
class Expected:
    """What ultralytics' own predictor finds in a picture, and the candidates that it suppressed most of."""

    detections: Sequence[Detection]
    candidates: Sequence[Detection]


@dataclass(frozen=True, slots=True)
class Limits:
    """`margin`: a box whose score is that near to the threshold may be on either side of it."""

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
    unmatched: int = 0  # on either side, those at the threshold left out
    ties: int = 0  # matched with a candidate that came as near to being chosen as scores may differ
    worst_iou: float | None = None  # of matched boxes, None without any
    worst_score: float | None = None

    def add(self, expected: Expected, found: Sequence[Detection]) -> None:
        """Each expected box with the found one of its class that overlaps most."""
        self.pictures += 1
        self.boxes += len(expected.detections)
        free, lonely = list(found), []
        for one in expected.detections:
            other = max((o for o in free if o.class_id == one.class_id), key=partial(iou_of, one), default=None)
            if other is None or iou_of(one, other) < LEAST_OVERLAP:
                lonely.append(one)
                continue
            free.remove(other)
            self._pair(one, other, expected.candidates)
        threshold, margin = self.thresholds.confidence, self.limits.margin
        self.unmatched += sum(abs(one.confidence - threshold) >= margin for one in (*lonely, *free))

    def _pair(self, one: Detection, other: Detection, candidates: Sequence[Detection]) -> None:
        """Of two candidates as good as equal, a grey level or a rounding decides which one suppresses the other."""
        if not self._near(one, other):
            rival = max(self._rivals(one, candidates), key=partial(iou_of, other), default=one)
            if self._near(rival, other):
                self.ties += 1
                one = rival
        iou, score = iou_of(one, other), abs(one.confidence - other.confidence)
        self.matched += 1
        self.worst_iou = iou if self.worst_iou is None else min(self.worst_iou, iou)
        self.worst_score = score if self.worst_score is None else max(self.worst_score, score)

    def _near(self, one: Detection, other: Detection) -> bool:
        apart = abs(one.confidence - other.confidence)
        return iou_of(one, other) >= self.limits.iou and apart <= self.limits.score

    def _rivals(self, one: Detection, candidates: Sequence[Detection]) -> Iterator[Detection]:
        """What this box suppressed, by a lead no greater than scores may differ."""
        for rival in candidates:
            is_near = rival.class_id == one.class_id and 0 <= one.confidence - rival.confidence <= self.limits.score
            if is_near and iou_of(one, rival) > self.thresholds.iou:
                yield rival

    def problems(self) -> Iterator[str]:
        if self.worst_iou is None or self.worst_score is None:
            yield f"no box matched, of {self.boxes}: nothing is proved"
            return
        if self.unmatched:
            yield f"{self.unmatched} boxes without a counterpart"
        if self.worst_iou < self.limits.iou:
            yield f"worst IoU {self.worst_iou:.4f} is under {self.limits.iou:g}"
        if self.worst_score > self.limits.score:
            yield f"worst score difference {self.worst_score:.4f} is over {self.limits.score:g}"


def iou_of(one: Detection, other: Detection) -> float:
    """Fractions of a picture do as well as its pixels."""
    return overlap(*as_rows((one, other)))

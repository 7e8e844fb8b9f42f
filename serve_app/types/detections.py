"""The words of the detection domain: plain values that every part passes to the others."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

MAX_PIXELS = 64_000_000  # of a picture, by default
MAX_PIXELS_VARIABLE = "SERVE_APP_MAX_PIXELS"  # tells Triton's Python models what is configured

Pixels = npt.NDArray[np.uint8]  # height × width × RGB


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a caller asks of the detections of one request."""

    confidence: float = 0.25
    iou: float = 0.7
    max_detections: int = 300
    classes: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Detection:
    """One object; the box is in fractions of the original picture."""

    x1: float
    y1: float
    x2: float
    y2: float
    confidence: float
    class_id: int
    class_name: str


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Where one picture's time went, in milliseconds."""

    decode: float = 0.0
    preprocess: float = 0.0
    queue: float = 0.0
    infer: float = 0.0
    postprocess: float = 0.0

    def by_stage(self) -> dict[str, float]:
        """By hand, as `asdict` costs ten times as much, and every picture has two of these."""
        return {
            "decode": self.decode, "preprocess": self.preprocess, "queue": self.queue, "infer": self.infer,
            "postprocess": self.postprocess,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a built model says of itself: the file `model.json` beside it."""

    name: str
    backend: str
    device: str
    precision: str
    image_size: int
    weights: str
    labels: tuple[str, ...]
    fixed_iou: float | None = None  # of an engine that can't be asked for another one
    least_confidence: float = 0.0  # what it doesn't answer lower scores than

    def can(self, thresholds: Thresholds) -> bool:
        """Whether its answers are right for these."""
        return self.fixed_iou in (None, thresholds.iou) and thresholds.confidence >= self.least_confidence


@dataclass(frozen=True, slots=True)
class PictureResult:
    """The answer for one picture: its size and what is on it, or the reason there is no answer."""

    width: int = 0
    height: int = 0
    detections: tuple[Detection, ...] = ()
    times: StageTimes = field(default_factory=StageTimes)
    error: str | None = None
    error_status: int = 0


@dataclass(frozen=True, slots=True)
class TrackAnswer:
    """What a track says to a request: which model answered, and a result for each picture."""

    model: str
    backend: str
    device: str
    results: tuple[PictureResult, ...]

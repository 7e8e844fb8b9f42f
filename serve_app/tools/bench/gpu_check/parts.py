"""The parts that a check is made of: what is asked of a process, and what it answers for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serve_app.detection.tracks import Track
from serve_app.settings import DetectionSettings, TritonSettings
from serve_app.tools.bench.gpu_check.fidelity import Difference, Expected
from serve_app.tools.bench.tracks import Row
from serve_app.types import Thresholds

BASELINE = "pytorch"  # what track A runs on
Kind = Literal["alone", "together", "ladder"]


@dataclass(frozen=True, slots=True)
class Part:
    """One row of the report, measured or not."""

    engine: str
    size: str
    track: str
    kind: Kind

    def __str__(self) -> str:
        what = "ladder" if self.kind == "ladder" else f"fidelity {self.kind}"
        return f"{self.engine}, {self.size}, track {self.track}, {what}"


@dataclass(frozen=True, slots=True)
class Load:
    clients: int
    duration_s: float
    warmup_s: float


@dataclass(frozen=True, slots=True)
class Job:
    """What one process does: its tracks on one engine."""

    engine: str
    tracks: tuple[Track, ...]
    detection: DetectionSettings
    triton: TritonSettings
    threads: int  # of PyTorch's predictor
    pictures: tuple[bytes, ...]
    load: Load
    log: Path  # Triton's own

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(self.detection.confidence, self.detection.iou, self.detection.max_detections)

    def parts(self) -> list[Part]:
        """In the order in which they are measured."""
        return [
            Part(self.engine, track.size, track.design.name, kind)
            for kinds in (("alone", "together"), ("ladder",))
            for track in self.tracks
            for kind in kinds
            if track.design.kind != "baseline" or kind != "together"  # PyTorch's predictor makes no batches
        ]

    def track_of(self, part: Part) -> Track:
        return next(one for one in self.tracks if (one.size, one.design.name) == (part.size, part.track))


@dataclass(frozen=True, slots=True)
class Said:
    """What is going on."""

    line: str


@dataclass(frozen=True, slots=True)
class Reference:
    """For one size, of each picture."""

    size: str
    pictures: tuple[Expected, ...]


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How a track's detections differ from the reference; the batches are those that Triton says it executed."""

    part: Part
    device: str
    precision: str
    difference: Difference
    largest_batch: int | None  # None where nothing tells
    max_batch: int
    problems: Sequence[str] = ()

    @property
    def passed(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class Rung:
    """How fast a track is."""

    part: Part
    device: str
    precision: str
    row: Row
    problems: Sequence[str] = ()

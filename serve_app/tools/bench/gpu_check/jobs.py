"""The jobs of a check, one for each process: their tracks, settings and parts, and the events that they emit."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from serve_app.detection.tracks import Track, tracks_of
from serve_app.detection.weights import find_weights
from serve_app.errors import ConfigurationError
from serve_app.settings import BaselineSettings, DetectionSettings, Settings, TritonSettings
from serve_app.tools.bench.gpu_check.engines import Device, EngineChoice, computed_in
from serve_app.tools.bench.gpu_check.fidelity import Difference, Expected
from serve_app.tools.bench.load import Load
from serve_app.tools.bench.tracks import TrackResult
from serve_app.types import Thresholds

BASELINE = "pytorch"  # the engine of track A
Kind = Literal["single", "concurrent", "ladder"]  # fidelity of single and of concurrent pictures, and speed


@dataclass(frozen=True, slots=True)
class Part:
    """One row of the report."""

    engine: str
    size: str
    track: str
    kind: Kind

    def __str__(self) -> str:
        what = "ladder" if self.kind == "ladder" else f"fidelity {self.kind}"
        return f"{self.engine}, {self.size}, track {self.track}, {what}"


@dataclass(frozen=True, slots=True)
class Job:
    """The tracks of one engine."""

    engine: str
    tracks: tuple[Track, ...]
    detection: DetectionSettings
    triton: TritonSettings
    threads: int  # of PyTorch's predictor
    pictures: tuple[bytes, ...]
    load: Load
    log: Path  # of Triton

    @property
    def thresholds(self) -> Thresholds:
        return Thresholds(self.detection.confidence, self.detection.iou, self.detection.max_detections)

    def parts(self) -> list[Part]:
        """Fidelity of all tracks first, then their speed."""
        return [
            Part(self.engine, track.size, track.design.name, kind)
            for kinds in (("single", "concurrent"), ("ladder",))
            for track in self.tracks
            for kind in kinds
            if track.design.kind != "baseline" or kind != "concurrent"  # PyTorch's predictor makes no batches
        ]

    def track_of(self, part: Part) -> Track:
        return next(one for one in self.tracks if (one.size, one.design.name) == (part.size, part.track))


@dataclass(frozen=True, slots=True)
class Message:
    """An event: progress, for the screen."""

    line: str


@dataclass(frozen=True, slots=True)
class Reference:
    """An event: what ultralytics finds in each picture, with the model of one size."""

    size: str
    pictures: tuple[Expected, ...]


@dataclass(frozen=True, slots=True)
class Fidelity:
    """An event: the difference of a track from the reference, and the largest batch that Triton executed."""

    part: Part
    device: str
    precision: str
    difference: Difference
    largest_batch: int | None
    max_batch: int
    problems: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Speed:
    """An event: a track under load."""

    part: Part
    device: str
    precision: str
    row: TrackResult
    problems: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Planner:
    """Makes jobs from the configuration, whose weights must be files."""

    settings: Settings
    device: Device
    pictures: tuple[bytes, ...]
    load: Load
    folder: Path

    def baseline_job(self, measured: bool) -> Job:
        """Makes the reference, and measures track A."""
        sizes = self.settings.detection.models if measured else ()
        tracks = [track for track in tracks_of(sizes, sizes) if track.design.kind == "baseline"]
        return self._job(BASELINE, tracks, self.settings.detection.model_copy(update={"device": self.device}))

    def engine_job(self, choice: EngineChoice) -> Job:
        models = {
            size: source.model_copy(update={"precision": computed_in(self.device, choice.engine, source.precision)})
            for size, source in self.settings.detection.models.items()
        }
        tracks = [
            track for track in tracks_of(models, ()) if track.design.kind != "pipeline" or not choice.pipeline_reasons
        ]
        changes: dict[str, object] = {"engine": choice.engine, "device": self.device, "models": models}
        changes["model_repository"] = self.folder / choice.engine / "models"
        return self._job(choice.engine, tracks, self.settings.detection.model_copy(update=changes))

    def _job(self, engine: str, tracks: Sequence[Track], detection: DetectionSettings) -> Job:
        triton = merge_deployments(self.settings.triton, [track.model for track in tracks])
        threads = (self.settings.baseline or BaselineSettings()).threads
        log = self.folder / engine / "triton.log"
        return Job(engine, tuple(tracks), detection, triton, threads, self.pictures, self.load, log)


def merge_deployments(deployments: Sequence[TritonSettings], models: Sequence[str]) -> TritonSettings:
    """One server for the models of several deployments, without a response cache, which would hide the engine."""
    own = [one for one in deployments if one.model_repository is None] or [TritonSettings(name="gpu_check")]
    pools = [one.cuda_pool_mib for one in own if one.cuda_pool_mib is not None]
    changes = {
        "name": "gpu_check",
        "models": tuple(models),
        "control_mode": "none",
        "cache_mib": 0,
        "cuda_pool_mib": sum(pools) if pools else None,
        "instances": {name: count for one in own for name, count in one.instances.items()},
    }
    return own[0].model_copy(update=changes)


def find_all_weights(settings: Settings) -> tuple[Settings, dict[str, str]]:
    """The settings with paths of weights, the same for every process; and the sizes without weights, with reasons."""
    detection, models = settings.detection, {}
    missing: dict[str, str] = {}
    for size, source in detection.models.items():
        try:
            weights = find_weights(source.weights, detection.family, size, detection.weights_folder)
        except ConfigurationError as problem:
            missing[size] = problem.message
        else:
            models[size] = source.model_copy(update={"weights": str(weights.path.absolute())})
    return settings.model_copy(update={"detection": detection.model_copy(update={"models": models})}), missing

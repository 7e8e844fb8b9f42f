"""From the configuration and what can run to jobs: which sizes and tracks each engine gets, and with which settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from serve_app.detection.tracks import Track, tracks_of
from serve_app.detection.weights import find_weights
from serve_app.errors import ConfigurationError
from serve_app.settings import BaselineSettings, DetectionSettings, Settings, TritonSettings
from serve_app.tools.bench.gpu_check.engines import Choice, Device, computed_in
from serve_app.tools.bench.gpu_check.parts import BASELINE, Job, Load

NAME = "gpu_check"


@dataclass(frozen=True, slots=True)
class Planner:
    """What all jobs have in common; the settings' weights are files."""

    settings: Settings
    device: Device
    pictures: tuple[bytes, ...]
    load: Load
    folder: Path

    def baseline(self, measured: bool) -> Job:
        """The reference, and track A if that is measured."""
        sizes = self.settings.detection.models if measured else ()
        tracks = [track for track in tracks_of(sizes, sizes) if track.design.kind == "baseline"]
        return self._job(BASELINE, tracks, self.settings.detection.model_copy(update={"device": self.device}))

    def engine(self, choice: Choice) -> Job:
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
        triton = together(self.settings.triton, [track.model for track in tracks])
        threads = (self.settings.baseline or BaselineSettings()).threads
        log = self.folder / engine / "triton.log"
        return Job(engine, tuple(tracks), detection, triton, threads, self.pictures, self.load, log)


def together(deployments: Sequence[TritonSettings], models: Sequence[str]) -> TritonSettings:
    """One server for what the configuration may give to several; answers from a cache would measure nothing."""
    own = [one for one in deployments if one.model_repository is None] or [TritonSettings(name=NAME)]
    pools = [one.cuda_pool_mib for one in own if one.cuda_pool_mib is not None]
    changes = {
        "name": NAME,
        "models": tuple(models),
        "control_mode": "none",
        "cache_mib": 0,
        "cuda_pool_mib": sum(pools) if pools else None,
        "instances": {name: count for one in own for name, count in one.instances.items()},
    }
    return own[0].model_copy(update=changes)


def with_weights(settings: Settings) -> tuple[Settings, dict[str, str]]:
    """Weights looked for once, so that every process has the same; sizes without any are left out, with the reason."""
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

"""The Ray Serve deployment that hosts one in-process Triton server."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve._private.logging_utils import get_serve_logs_dir

from serve_app.detection.samples import require_answer, sample_picture
from serve_app.detection.tracks import Track, tracks_of
from serve_app.errors import NotFoundError, ServeAppError
from serve_app.settings import DetectionSettings, TritonSettings
from serve_app.telemetry.logging import keep_contents_out
from serve_app.telemetry.warmup import WarmUp
from serve_app.triton.control import ClusterStore, ModelControl
from serve_app.triton.detector import Detector
from serve_app.triton.engine import Engine
from serve_app.triton.measuring import Measuring
from serve_app.triton.overlay import Preparation
from serve_app.triton.protocol import Protocol
from serve_app.triton.repository import ModelRepository
from serve_app.types import PictureResult, Thresholds, TrackAnswer
from serve_app.types.changes import ModelChange
from serve_app.types.deadlines import left_s
from serve_app.types.tensors import InferAnswer, InferRequest

logger = logging.getLogger("ray.serve")
# How soon a replica that started in the middle of a load or unload takes part in it.
CATCH_UP_INTERVAL_S = 2.0
PUBLISH_INTERVAL_S = 5.0  # of Triton's metrics; Ray gathers them at about the same pace


class TritonReplica:
    """Loads and warms its models before it reports ready; raises when one of them can't be served."""

    async def __init__(self, settings: TritonSettings, detection: DetectionSettings) -> None:  # type: ignore[misc]
        keep_contents_out()
        started = time.monotonic()
        self._settings = settings
        self._defaults = Thresholds(detection.confidence, detection.iou)
        repository = ModelRepository.of(settings, detection)
        self._cards = repository.cards()
        self._tracks = {
            track.target: track for track in tracks_of(detection.models, ()) if track.model in repository.selected
        }
        preparation = Preparation.of(settings, detection, logger.info)
        self._engine = Engine(repository, settings, _log_file(settings.name), preparation)
        await asyncio.to_thread(self._engine.start)
        self._protocol = Protocol(self._engine)
        self._control = ModelControl(self._engine, settings.control_mode, ClusterStore(settings, detection))
        self._detector = Detector(self._engine, self._cards, detection.max_pixels, settings.picture_threads)
        self._stopped = False
        await self._control.catch_up()
        self._warming = WarmUp({track.model: partial(self._probe, track) for track in self._tracks.values()})
        await self._warming.run()
        self._measuring = Measuring(self._engine, self._protocol)
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._publish())]
        names = len(repository.selected)
        logger.info(f"{settings.name}: {names} models ready in {time.monotonic() - started:.1f} s")

    async def _probe(self, track: Track) -> None:
        require_answer(track.model, await self._detector.detect(track, sample_picture(), self._defaults))

    async def detect(
        self, target: str, pictures: Sequence[bytes], thresholds: Thresholds, deadline: float | None = None
    ) -> TrackAnswer:
        """Detections for each picture; one that can't be read fails alone."""
        left_s(deadline)
        track = self._track(target)
        slots = asyncio.Semaphore(self._settings.max_pictures_in_flight)

        async def one(picture: bytes) -> PictureResult:
            async with slots:
                return await self._detector.detect(track, picture, thresholds)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(picture)) for picture in pictures]
        model = self._detector.model_for(track, thresholds)
        card = self._cards[model]
        return TrackAnswer(model, card.backend, card.device, tuple(task.result() for task in tasks))

    def _track(self, target: str) -> Track:
        try:
            return self._tracks[target]
        except KeyError:
            raise NotFoundError(f"no track {target!r} here; there is: {', '.join(self._tracks)}") from None

    async def infer(self, asked: InferRequest) -> InferAnswer:
        return await self._protocol.infer(asked)

    async def stream(self, asked: InferRequest) -> AsyncIterator[InferAnswer]:
        async for answer in self._protocol.stream(asked):
            yield answer

    def describe(self) -> dict[str, Any]:
        """What the router tells of this deployment: tracks with their models, and every model's state."""
        return {
            "tracks": {target: self._cards[track.model] for target, track in self._tracks.items()},
            "models": self._engine.index(),
            "server": self._engine.server_metadata(),
        }

    def ready(self, model: str, version: int) -> bool:
        return self._protocol.ready(model, version)

    def metadata(self, model: str, version: int) -> dict[str, Any]:
        return self._protocol.metadata(model, version)

    def config(self, model: str, version: int) -> dict[str, Any]:
        return self._protocol.config(model, version)

    def statistics(self, model: str = "", version: int = -1) -> list[dict[str, Any]]:
        return self._protocol.statistics(model, version)

    def index(self) -> tuple[str, list[dict[str, str]]]:
        """Which replica this is, and the state of every model on it."""
        return _replica_name(), self._engine.index()

    async def change(self, change: ModelChange) -> tuple[str, ServeAppError | None]:
        """Which replica this is, and what kept it from the change."""
        try:
            await self._control.apply(change)
        except ServeAppError as problem:
            return _replica_name(), problem
        return _replica_name(), None

    async def start_warming(self) -> None:
        self._warming.start()

    def warming(self) -> dict[str, Any]:
        return self._warming.progress()

    def check_health(self) -> None:
        """Serve asks; a server that isn't ready any more is replaced."""
        self._engine.require_health()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve's name for it; Serve asks where the deployment scales by it."""
        return self._measuring.pressure()

    async def _publish(self) -> None:
        while True:
            try:
                self._measuring.publish()
            except Exception as problem:  # the next round may work, and pictures are answered without it
                logger.warning(f"{self._settings.name}: no metrics: {problem}")
            await asyncio.sleep(PUBLISH_INTERVAL_S)

    async def _follow(self) -> None:
        """Follow the repository or what other replicas were told; what fails is told and tried again."""
        polls = self._settings.control_mode == "poll"
        while self._settings.control_mode != "none":
            await asyncio.sleep(self._settings.poll_interval_s if polls else CATCH_UP_INTERVAL_S)
            try:
                await (asyncio.to_thread(self._engine.poll) if polls else self._control.catch_up())
                self._cards.update(self._engine.repository.cards())  # a new version may know other classes
            except Exception as problem:  # also Ray's own: the next round may work
                logger.warning(f"{self._settings.name}: {problem}")

    async def __del__(self) -> None:
        """Serve calls this once no request is in flight any more; stubs and shared memory go with the server."""
        if getattr(self, "_stopped", True):
            return
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        self._detector.close()
        with suppress(ServeAppError):
            await asyncio.to_thread(self._engine.stop)


def _replica_name() -> str:
    return str(serve.get_replica_context().replica_id.unique_id)


def _log_file(name: str) -> Path:
    """Triton's own log, where the Ray dashboard shows it beside the replica's."""
    return Path(get_serve_logs_dir()) / f"triton_{name}_{_replica_name()}.log"

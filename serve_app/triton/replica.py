"""The Ray Serve replica that hosts one in-process Triton server."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve._private.logging_utils import get_serve_logs_dir

from serve_app.detection.postprocess import require_classes
from serve_app.detection.samples import require_answer, sample_picture
from serve_app.detection.tracks import Track, tracks_of
from serve_app.errors import NotFoundError, ServeAppError
from serve_app.settings import DetectionSettings, TritonSettings
from serve_app.telemetry.priority import in_a_thread_that_gives_way
from serve_app.telemetry.replica import begin_replica, keep_what_is_loaded
from serve_app.telemetry.warmup import WarmUp
from serve_app.triton.control import ClusterStore, ModelControl
from serve_app.triton.detector import Detector
from serve_app.triton.engine import Engine
from serve_app.triton.metrics import TritonMetrics
from serve_app.triton.overlay import Preparation
from serve_app.triton.protocol import Protocol
from serve_app.triton.repository import ModelRepository
from serve_app.types import MAX_PIXELS_VARIABLE, PictureResult, Thresholds, TrackAnswer
from serve_app.types.changes import ModelChange
from serve_app.types.deadlines import left_s
from serve_app.types.tensors import InferAnswer, InferRequest

logger = logging.getLogger("ray.serve")
# How soon a replica that started during a load or unload performs it too.
CATCH_UP_INTERVAL_S = 2.0
PUBLISH_INTERVAL_S = 5.0  # of Triton's metrics; Ray collects them about as often


class TritonReplica:
    """Loads and warms its models before it is ready; raises if one of them can't be served."""

    async def __init__(self, settings: TritonSettings, detection: DetectionSettings) -> None:  # type: ignore[misc]
        begin_replica()
        started = time.monotonic()
        self._settings = settings
        self._defaults = Thresholds(detection.confidence, detection.iou)
        os.environ[MAX_PIXELS_VARIABLE] = str(detection.max_pixels)
        repository = ModelRepository.of(settings, detection)
        self._cards = repository.cards()
        self._tracks = {
            track.target: track for track in tracks_of(detection.models, ()) if track.model in repository.selected
        }
        self._tasks: list[asyncio.Task[None]] = []
        preparation = Preparation.of(settings, detection, logger.info)
        self._engine = Engine(repository, settings, _log_file(settings.name), preparation)
        self._protocol = Protocol(self._engine)
        store = ClusterStore(settings, detection)
        self._control = ModelControl(self._engine, settings.control_mode, store, settings.load_files)
        self._detector = Detector(self._engine, self._cards, detection.max_pixels, settings.picture_threads)
        self._warm_up = WarmUp({track.model: partial(self._probe, track) for track in self._tracks.values()})
        try:
            await in_a_thread_that_gives_way(self._engine.start)
            await self._control.catch_up()
            await self._warm_up.run()
            self._metrics = TritonMetrics(self._engine, self._protocol)
        except BaseException:
            await self.close()
            raise
        self._tasks += [asyncio.create_task(self._follow()), asyncio.create_task(self._publish())]
        keep_what_is_loaded()
        count = len(repository.selected)
        logger.info(f"{settings.name}: {count} models ready in {time.monotonic() - started:.1f} s")

    async def _probe(self, track: Track) -> None:
        require_answer(track.model, await self._detector.detect(track, sample_picture(), self._defaults))

    async def detect(
        self, target: str, pictures: Sequence[bytes], thresholds: Thresholds, deadline: float | None = None
    ) -> TrackAnswer:
        """Detections for each picture; one that can't be read fails alone."""
        left_s(deadline)
        track = self._track(target)
        require_classes(thresholds, self._cards[track.model].labels)
        if len(pictures) == 1:  # no group of tasks for one
            results = [await self._detector.detect(track, pictures[0], thresholds)]
        else:
            results = await self._detect_many(track, pictures, thresholds)
        model = self._detector.model_for(track, thresholds)
        card = self._cards[model]
        return TrackAnswer(model, card.backend, card.device, tuple(results))

    async def _detect_many(
        self, track: Track, pictures: Sequence[bytes], thresholds: Thresholds
    ) -> list[PictureResult]:
        slots = asyncio.Semaphore(self._settings.max_pictures_in_flight)

        async def one(picture: bytes) -> PictureResult:
            async with slots:
                return await self._detector.detect(track, picture, thresholds)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(picture)) for picture in pictures]
        return [task.result() for task in tasks]

    def _track(self, target: str) -> Track:
        try:
            return self._tracks[target]
        except KeyError:
            raise NotFoundError(f"no track {target!r}; available: {', '.join(self._tracks)}") from None

    async def infer(self, asked: InferRequest) -> InferAnswer:
        return await self._protocol.infer(asked)

    async def stream(self, asked: InferRequest) -> AsyncIterator[InferAnswer]:
        async for answer in self._protocol.stream(asked):
            yield answer

    def describe(self) -> dict[str, Any]:
        """Tracks with their models' cards, every model's state, and the server's metadata."""
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
        """Which replica this is, and why the change failed on it, if it did."""
        try:
            await self._control.apply(change)
        except ServeAppError as problem:
            return _replica_name(), problem
        return _replica_name(), None

    async def start_warming(self) -> None:
        self._warm_up.start()

    def warming(self) -> dict[str, Any]:
        return self._warm_up.progress()

    def check_health(self) -> None:
        """Serve calls this, and replaces a replica that raises."""
        self._engine.require_health()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve calls this for a deployment whose autoscaling policy uses it."""
        return self._metrics.pressure()

    async def _publish(self) -> None:
        while True:
            try:
                self._metrics.publish()
            except Exception as problem:  # the next round may work; requests don't depend on it
                logger.warning(f"{self._settings.name}: metrics could not be published: {problem}")
            await asyncio.sleep(PUBLISH_INTERVAL_S)

    async def _follow(self) -> None:
        """Follow the repository, or the changes made on other replicas; a failure is logged and tried again."""
        polls = self._settings.control_mode == "poll"
        while self._settings.control_mode != "none":
            await asyncio.sleep(self._settings.poll_interval_s if polls else CATCH_UP_INTERVAL_S)
            try:
                await (asyncio.to_thread(self._engine.poll) if polls else self._control.catch_up())
                self._cards.update(self._engine.repository.cards())  # a new version may have other classes
            except Exception as problem:  # Ray's own errors too: the next round may work
                logger.warning(f"{self._settings.name}: {problem}")

    async def __del__(self) -> None:
        """Serve calls this once no request is in flight any more; stubs and shared memory go with the server."""
        if hasattr(self, "_warm_up"):  # else there is nothing that could be closed
            await self.close()

    async def close(self) -> None:
        """Safe to call again."""
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

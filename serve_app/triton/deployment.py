"""The Ray Serve deployment that hosts one in-process Triton server."""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve._private.logging_utils import get_serve_logs_dir

from serve_app.detection.samples import sample_picture
from serve_app.detection.tracks import Track, tracks_of
from serve_app.errors import ModelLoadError, NotFoundError, ServeAppError
from serve_app.settings import DetectionSettings, TritonSettings
from serve_app.triton.detector import Detector
from serve_app.triton.engine import Engine
from serve_app.triton.repository import ModelRepository
from serve_app.types import PictureResult, Thresholds, TrackAnswer

logger = logging.getLogger("ray.serve")


class TritonReplica:
    """Loads and warms its models before it reports ready; raises when one of them can't be served."""

    async def __init__(self, settings: TritonSettings, detection: DetectionSettings) -> None:  # type: ignore[misc]
        started = time.monotonic()
        self._settings = settings
        repository = ModelRepository.of(settings, detection)
        self._cards = repository.cards()
        self._tracks = {
            track.target: track for track in tracks_of(detection.models, ()) if track.model in repository.selected
        }
        self._engine = Engine(repository, settings, _log_file(settings.name))
        await asyncio.to_thread(self._engine.start)
        self._detector = Detector(self._engine, self._cards, detection.max_pixels, settings.picture_threads)
        self._stopped = False
        await self.warm()
        self._polling = asyncio.create_task(self._poll()) if settings.control_mode == "poll" else None
        names = len(repository.selected)
        logger.info(f"{settings.name}: {names} models ready in {time.monotonic() - started:.1f} s")

    async def warm(self) -> None:
        """One picture through every track, so that the first caller doesn't pay for what is made lazily."""
        for track in self._tracks.values():
            result = await self._detector.detect(track, sample_picture(), Thresholds())
            if result.error:
                raise ModelLoadError(f"track {track.target} can't answer: {result.error}")

    async def detect(self, target: str, pictures: Sequence[bytes], thresholds: Thresholds) -> TrackAnswer:
        """Detections for each picture; one that can't be read fails alone."""
        track = self._track(target)
        slots = asyncio.Semaphore(self._settings.max_pictures_in_flight)

        async def one(picture: bytes) -> PictureResult:
            async with slots:
                return await self._detector.detect(track, picture, thresholds)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(picture)) for picture in pictures]
        card = self._cards[track.model]
        return TrackAnswer(track.model, card.backend, card.device, tuple(task.result() for task in tasks))

    def _track(self, target: str) -> Track:
        try:
            return self._tracks[target]
        except KeyError:
            raise NotFoundError(f"no track {target!r} here; there is: {', '.join(self._tracks)}") from None

    def describe(self) -> dict[str, Any]:
        """What the router tells of this deployment: tracks with their models, and every model's state."""
        return {
            "tracks": {target: self._cards[track.model] for target, track in self._tracks.items()},
            "models": self._engine.index(),
        }

    def statistics(self, model: str) -> dict[str, Any]:
        return self._engine.statistics(model)

    def check_health(self) -> None:
        """Serve asks; a server that isn't ready any more is replaced."""
        self._engine.require_health()

    async def _poll(self) -> None:
        """Follow the repository; a poll that fails is told and tried again."""
        while True:
            await asyncio.sleep(self._settings.poll_interval_s)
            try:
                await asyncio.to_thread(self._engine.poll)
                self._cards.update(self._engine.repository.cards())  # a new version may know other classes
            except ServeAppError as problem:
                logger.warning(f"{self._settings.name}: {problem}")

    async def __del__(self) -> None:
        """Serve calls this once no request is in flight any more; stubs and shared memory go with the server."""
        if getattr(self, "_stopped", True):
            return
        self._stopped = True
        if self._polling:
            self._polling.cancel()
        self._detector.close()
        with suppress(ServeAppError):
            await asyncio.to_thread(self._engine.stop)


def _log_file(name: str) -> Path:
    """Triton's own log, where the Ray dashboard shows it beside the replica's."""
    replica = serve.get_replica_context().replica_id.unique_id
    return Path(get_serve_logs_dir()) / f"triton_{name}_{replica}.log"

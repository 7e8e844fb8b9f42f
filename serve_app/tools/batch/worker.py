"""One actor of the pool: runs the service's engine over shards of pictures and stores the results."""

import asyncio
import logging
from typing import Any

from serve_app.detection.tracks import Track, tracks_of
from serve_app.errors import ConfigurationError, InvalidRequestError, NotFoundError
from serve_app.settings import DetectionSettings, TritonSettings
from serve_app.tools.batch.pictures import read_picture
from serve_app.tools.batch.places import Place
from serve_app.tools.batch.plan import Shard
from serve_app.tools.batch.tables import store
from serve_app.triton.detector import Detector
from serve_app.triton.engine import Engine
from serve_app.triton.overlay import Preparation
from serve_app.triton.repository import ModelRepository
from serve_app.types import PictureResult, Thresholds

logger = logging.getLogger(__name__)
IN_FLIGHT = 64  # fewer pictures than the 128 that an engine's queue takes before it refuses


class Worker:
    """Ray Data creates one per actor and calls it with a shard as a row."""

    def __init__(
        self,
        triton: TritonSettings,
        detection: DetectionSettings,
        target: str,
        thresholds: Thresholds,
        destination: str,
    ) -> None:
        self._track = find_track(target, detection)
        self._thresholds = thresholds
        self._place = Place.of(destination)
        only = triton.model_copy(update={"models": (self._track.model,), "control_mode": "none"})
        repository = ModelRepository.of(only, detection)
        if not repository.cards()[self._track.model].can(thresholds):  # NMS in the graph can't: use the raw head
            only = only.model_copy(update={"models": (self._track.model, f"yolo_{self._track.size}")})
            repository = ModelRepository.of(only, detection)
        self._engine = Engine(repository, only, preparation=Preparation.of(only, detection, logger.info))
        self._engine.start()
        self._detector = Detector(self._engine, repository.cards(), detection.max_pixels, triton.picture_threads)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard = Shard(int(row["number"]), tuple(row["pictures"]))
        results = asyncio.run(self._detect_all(shard))
        found, failed = store(shard, results, self._place)
        return {"found": found, "failed": failed}

    async def _detect_all(self, shard: Shard) -> dict[str, PictureResult]:
        slots = asyncio.Semaphore(IN_FLIGHT)

        async def one(name: str) -> PictureResult:
            async with slots:
                try:
                    picture = await read_picture(name)
                except (OSError, InvalidRequestError) as problem:
                    return PictureResult(error=f"cannot be read: {problem}", error_status=NotFoundError.status)
                return await self._detector.detect(self._track, picture, self._thresholds)

        async with asyncio.TaskGroup() as group:
            tasks = {name: group.create_task(one(name)) for name in shard.pictures}
        return {name: task.result() for name, task in tasks.items()}


def find_track(target: str, detection: DetectionSettings) -> Track:
    tracks = {track.target: track for track in tracks_of(detection.models, ())}
    if target not in tracks:
        raise ConfigurationError(f"no track {target!r}; available: {', '.join(tracks)}")
    return tracks[target]

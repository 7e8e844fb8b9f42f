"""Track A: ultralytics' predictor on PyTorch, as a deployment."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2

from serve_app.detection.postprocess import require_classes
from serve_app.detection.preprocess import decode
from serve_app.detection.samples import require_answer, sample_picture
from serve_app.detection.weights import find_weights
from serve_app.errors import ModelLoadError, NotFoundError, ServeAppError
from serve_app.settings import BaselineSettings, DetectionSettings
from serve_app.telemetry.replica import begin_replica
from serve_app.telemetry.warmup import WarmUp
from serve_app.types import Detection, ModelCard, PictureResult, Pixels, StageTimes, Thresholds, TrackAnswer
from serve_app.types.deadlines import left_s


class TorchPredictor:
    """The predictor of one size; pictures are letterboxed to the full square, as in every other track."""

    def __init__(self, size: str, weights: Path, image_size: int, nms: bool, threads: int) -> None:
        import torch
        from ultralytics import YOLO

        try:
            self._model = YOLO(weights, task="detect")
        except Exception as problem:  # ultralytics unpickles: a broken file can raise anything
            raise ModelLoadError(f"weights {weights} can't be read: {problem}") from None
        self._names: dict[int, str] = self._model.names
        self._threads = threads
        self._image_size = image_size
        self._nms = None if nms else False
        device = "cuda" if torch.cuda.is_available() else "cpu"  # as the predictor chooses at the first picture
        labels = tuple(self._names[index] for index in sorted(self._names))
        self.card = ModelCard(f"yolo_{size}", "pytorch", device, "f32", image_size, weights.name, labels)

    def predict(self, picture: bytes, thresholds: Thresholds, max_pixels: int) -> PictureResult:
        import torch

        start = time.perf_counter()
        try:
            pixels = decode(picture, max_pixels)
        except ServeAppError as problem:
            return PictureResult(error=problem.message, error_status=problem.status)
        decode_ms = (time.perf_counter() - start) * 1e3
        if torch.get_num_threads() != self._threads:  # the predictor's setup leaves one core idle
            torch.set_num_threads(self._threads)
        (result,) = self._model.predict(
            cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR),
            imgsz=self._image_size,
            rect=False,
            conf=thresholds.confidence,
            iou=thresholds.iou,
            max_det=thresholds.max_detections,
            classes=list(thresholds.classes) if thresholds.classes is not None else None,
            nms=self._nms,
            verbose=False,
        )
        return self._read(result, pixels, decode_ms)

    def _read(self, result: Any, pixels: Pixels, decode_ms: float) -> PictureResult:
        boxes, speed = result.boxes, result.speed
        detections = tuple(
            Detection(x1, y1, x2, y2, confidence, int(label), self._names[int(label)])
            for (x1, y1, x2, y2), confidence, label in zip(
                boxes.xyxyn.tolist(), boxes.conf.tolist(), boxes.cls.tolist(), strict=True
            )
        )
        times = StageTimes(decode_ms, speed["preprocess"], 0.0, speed["inference"], speed["postprocess"])
        return PictureResult(pixels.shape[1], pixels.shape[0], detections, times)


class TorchBaseline:
    """Serves track A, one picture at a time, because the predictor is not thread-safe."""

    async def __init__(self, settings: BaselineSettings, detection: DetectionSettings) -> None:  # type: ignore[misc]
        begin_replica(engine="normal")
        self._max_pixels = detection.max_pixels
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="torch")
        self._predictors: dict[str, TorchPredictor] = {}
        for size in settings.sizes or detection.models:
            # not downloaded here: the engines of the other tracks were built from the files on disk
            source = detection.models[size]
            weights = find_weights(source.weights, detection.family, size, detection.weights_folder, fetch=False)
            self._predictors[size] = TorchPredictor(
                size, weights.path, detection.image_size, source.nms, settings.threads
            )
        self._warming = WarmUp({p.card.name: partial(self._probe, size) for size, p in self._predictors.items()})
        await self._warming.run()

    async def _probe(self, size: str) -> None:
        answer = await self.detect(size, [sample_picture()], Thresholds())
        require_answer(answer.model, answer.results[0])

    async def detect(
        self, size: str, pictures: Sequence[bytes], thresholds: Thresholds, deadline: float | None = None
    ) -> TrackAnswer:
        """Detections for each picture; one that can't be read doesn't fail the others."""
        predictor = self._predictors.get(size)
        if predictor is None:
            raise NotFoundError(f"track A serves no size {size!r}; it serves {', '.join(self._predictors)}")
        require_classes(thresholds, predictor.card.labels)
        loop = asyncio.get_running_loop()
        results = []
        for picture in pictures:  # one at a time, so that concurrent requests alternate
            left_s(deadline)
            submitted = time.perf_counter()
            result, started = await loop.run_in_executor(
                self._thread, _timed, predictor, picture, thresholds, self._max_pixels
            )
            results.append(_with_queue(result, (started - submitted) * 1e3))
        card = predictor.card
        return TrackAnswer(card.name, card.backend, card.device, tuple(results))

    async def start_warming(self) -> None:
        self._warming.start()

    def warming(self) -> dict[str, Any]:
        return self._warming.progress()

    def describe(self) -> dict[str, Any]:
        return {"tracks": {size: predictor.card for size, predictor in self._predictors.items()}}


def _timed(
    predictor: TorchPredictor, picture: bytes, thresholds: Thresholds, max_pixels: int
) -> tuple[PictureResult, float]:
    started = time.perf_counter()
    return predictor.predict(picture, thresholds, max_pixels), started


def _with_queue(result: PictureResult, queue_ms: float) -> PictureResult:
    return replace(result, times=replace(result.times, queue=queue_ms))

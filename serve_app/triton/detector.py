"""Runs detection tracks on an engine: decode, letterbox, infer, boxes, with the time of each stage."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from serve_app.detection.postprocess import Floats, Ints, keep_wanted, suppress, to_detections
from serve_app.detection.preprocess import Letterbox, as_unit_planes, decode, letterbox, read_header
from serve_app.detection.tracks import Track
from serve_app.errors import InvalidRequestError, NotAnImageError, UnreadableImageError
from serve_app.triton.engine import Answer, Engine
from serve_app.types import Detection, ModelCard, PictureResult, StageTimes, Thresholds

Result = TypeVar("Result")
Arrays = Mapping[str, npt.NDArray[np.generic]]


class Detector:
    """Answers pictures with detections; each kind of track is one method."""

    def __init__(self, engine: Engine, cards: Mapping[str, ModelCard], max_pixels: int, threads: int) -> None:
        self._engine = engine
        self._cards = cards
        self._max_pixels = max_pixels
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pictures")

    async def detect(self, track: Track, picture: bytes, thresholds: Thresholds) -> PictureResult:
        """One picture on one track; a picture that can't be read is a result too."""
        try:
            if track.design.kind == "pipeline":
                return await self._pipeline(track, picture, thresholds)
            return await self._engine_only(track, picture, thresholds)
        except (NotAnImageError, UnreadableImageError) as problem:
            return PictureResult(error=problem.message, error_status=problem.status)

    async def _engine_only(self, track: Track, picture: bytes, thresholds: Thresholds) -> PictureResult:
        """Tracks B and C: everything around the engine happens here, off the event loop."""
        card = self._cards[track.model]
        planes, box, decode_ms, preprocess_ms = await self._in_pool(self._prepare, picture, card.image_size)
        raw = track.design.kind == "raw"
        parameters = {} if raw else _parameters(thresholds)
        answer = await self._engine.infer(track.model, {"images": planes}, parameters)
        start = time.perf_counter()
        finish = _from_raw_head if raw else _from_end2end
        # A raw head has every anchor's scores: too much arithmetic for the event loop.
        work = (answer.outputs, box, thresholds, card.labels)
        detections = await self._in_pool(finish, *work) if raw else finish(*work)
        times = StageTimes(decode_ms, preprocess_ms, answer.queue_ms, answer.infer_ms, _since(start))
        return PictureResult(box.width, box.height, detections, times)

    async def _pipeline(self, track: Track, picture: bytes, thresholds: Thresholds) -> PictureResult:
        """Track D: Triton does it all; only the header is looked at before."""
        await self._in_pool(read_header, picture, self._max_pixels)
        card = self._cards[track.model]
        encoded = np.frombuffer(picture, np.uint8)[None]
        try:
            answer = await self._engine.infer(track.model, {"encoded": encoded}, _parameters(thresholds))
        except InvalidRequestError as problem:  # our tensors are right, so it is about the picture
            raise UnreadableImageError(problem.message) from None
        start = time.perf_counter()
        width, height = map(int, answer.outputs["original_size"][0])
        box = Letterbox.fit(width, height, card.image_size)
        detections = _from_end2end(answer.outputs, box, thresholds, card.labels)
        times = _pipeline_times(answer, _since(start))
        return PictureResult(width, height, detections, times)

    def _prepare(self, picture: bytes, side: int) -> tuple[Floats, Letterbox, float, float]:
        start = time.perf_counter()
        pixels = decode(picture, self._max_pixels)
        decoded = time.perf_counter()
        square, box = letterbox(pixels, side)
        planes = as_unit_planes(square)
        return planes, box, (decoded - start) * 1e3, _since(decoded)

    async def _in_pool(self, function: Callable[..., Result], *arguments: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _parameters(thresholds: Thresholds) -> dict[str, str]:
    """Strings: the Python backend of this Triton takes no fractions as request parameters."""
    return {"score_threshold": repr(thresholds.confidence), "iou_threshold": repr(thresholds.iou)}


def _from_raw_head(
    outputs: Arrays, box: Letterbox, thresholds: Thresholds, names: Sequence[str]
) -> tuple[Detection, ...]:
    return to_detections(*suppress(_floats(outputs["output0"])[0], thresholds), box, names)


def _from_end2end(
    outputs: Arrays, box: Letterbox, thresholds: Thresholds, names: Sequence[str]
) -> tuple[Detection, ...]:
    count = int(outputs["num_dets"][0, 0])
    labels: Ints = outputs["det_classes"][0, :count].astype(np.int32, copy=False)
    rows = _floats(outputs["det_boxes"])[0, :count], _floats(outputs["det_scores"])[0, :count], labels
    return to_detections(*keep_wanted(*rows, thresholds), box, names)


def _floats(array: npt.NDArray[np.generic]) -> Floats:
    return array.astype(np.float32, copy=False)


def _pipeline_times(answer: Answer, postprocess_ms: float) -> StageTimes:
    """An ensemble's first step is the preprocessing; decoding is part of it."""
    preprocess = answer.steps[0].infer_ms if len(answer.steps) > 1 else 0.0
    return StageTimes(0.0, preprocess, answer.queue_ms, answer.infer_ms - preprocess, postprocess_ms)


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1e3

"""Runs detection tracks on an engine: decode, letterbox, infer, boxes, with the time of each stage."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from tritonclient.grpc.model_config_pb2 import DataType

from serve_app.detection.postprocess import Floats, Ints, keep_wanted, suppress, to_detections
from serve_app.detection.preprocess import (
    Letterbox,
    PictureHeader,
    as_unit_planes,
    decode,
    is_for_dali,
    letterbox,
    read_header,
    read_plain_header,
)
from serve_app.detection.tracks import Track
from serve_app.errors import EngineError, InvalidRequestError, NotAnImageError, UnreadableImageError
from serve_app.telemetry.priority import let_thread_give_way
from serve_app.triton.engine import Answer, Engine
from serve_app.types import Detection, ModelCard, PictureResult, StageTimes, Thresholds

Result = TypeVar("Result")
Arrays = Mapping[str, npt.NDArray[np.generic]]
Squares = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
# Decoding takes up to two seconds: such pictures leave a thread of the pool to others, and are no part of a batch.
LARGE_PIXELS = 16_000_000


class Detector:
    """Answers pictures with detections; each kind of track is one method."""

    def __init__(self, engine: Engine, cards: Mapping[str, ModelCard], max_pixels: int, threads: int) -> None:
        self._engine = engine
        self._cards = cards
        self._max_pixels = max_pixels
        self._pool = ThreadPoolExecutor(threads, "pictures", initializer=let_thread_give_way)
        self._large = asyncio.Semaphore(max(threads - 1, 1))

    def model_for(self, track: Track, thresholds: Thresholds) -> str:
        """The track's own model, or the raw head where NMS inside of it has other thresholds."""
        if self._cards[track.model].can(thresholds):
            return track.model
        raw, card = f"yolo_{track.size}", self._cards[track.model]
        if raw in self._cards:
            return raw
        raise InvalidRequestError(
            f"{track.target} takes iou={card.fixed_iou:g} and conf={card.least_confidence:g} or more; for others, such "
            f"as conf={thresholds.confidence:g} and iou={thresholds.iou:g}, serve {raw} in the same deployment"
        )

    async def detect(self, track: Track, picture: bytes, thresholds: Thresholds) -> PictureResult:
        """One picture on one track; a picture that can't be read is a result too."""
        model = self.model_for(track, thresholds)
        try:
            header = read_plain_header(picture, self._max_pixels)
            if header is None:
                header = await self._in_pool(read_header, picture, self._max_pixels)
            if model != track.model or track.design.kind != "pipeline":
                return await self._engine_only(model, picture, header, thresholds)
            return await self._pipeline(model, picture, header, thresholds)
        except (NotAnImageError, UnreadableImageError) as problem:
            return PictureResult(error=problem.message, error_status=problem.status)

    async def _engine_only(
        self, model: str, picture: bytes, header: PictureHeader, thresholds: Thresholds
    ) -> PictureResult:
        """Everything around the engine happens here, off the event loop: tracks B and C, and D without its reader."""
        card = self._cards[model]
        inputs = self._engine.repository.all[model].config.input
        as_bytes = any(one.data_type == DataType.TYPE_UINT8 for one in inputs)
        async with self._large if header.pixels > LARGE_PIXELS else nullcontext():
            images, box, decode_ms, preprocess_ms = await self._in_pool(
                self._prepare, picture, header, card.image_size, as_bytes
            )
        answer = await self._engine.infer(model, {"images": images}, _parameters(thresholds))
        start = time.perf_counter()
        work = (answer.outputs, box, thresholds, card.labels)
        # A raw head has every anchor's scores: too much arithmetic for the event loop.
        raw = "output0" in answer.outputs
        detections = await self._in_pool(_from_raw_head, *work) if raw else _from_end2end(*work)
        times = StageTimes(decode_ms, preprocess_ms, answer.queue_ms, answer.infer_ms, _since(start))
        return PictureResult(box.width, box.height, detections, times)

    async def _pipeline(
        self, model: str, picture: bytes, header: PictureHeader, thresholds: Thresholds
    ) -> PictureResult:
        """Track D: Triton does it all; only the header is looked at before."""
        steps = self._engine.repository.all[model].steps
        reader, engine = steps[0], steps[-1]
        fails_together = self._engine.repository.all[reader].config.backend == "dali"
        if header.pixels > LARGE_PIXELS or (
            fails_together and not await self._in_pool(is_for_dali, picture, self._max_pixels)
        ):
            return await self._engine_only(engine, picture, header, thresholds)
        card = self._cards[model]
        encoded = np.frombuffer(picture, np.uint8)[None]
        try:
            answer = await self._engine.infer(model, {"encoded": encoded}, _parameters(thresholds))
        except InvalidRequestError as problem:  # our tensors are right, so it is about the picture
            raise UnreadableImageError(problem.message) from None
        except EngineError:
            if not fails_together:
                raise
            # Triton's DALI backend fails all pictures of a batch for one of them: read here, only that one fails.
            return await self._engine_only(engine, picture, header, thresholds)
        start = time.perf_counter()
        width, height = map(int, answer.outputs["original_size"][0])
        box = Letterbox.fit(width, height, card.image_size)
        detections = _from_end2end(answer.outputs, box, thresholds, card.labels)
        times = _pipeline_times(answer, _since(start))
        return PictureResult(width, height, detections, times)

    def _prepare(
        self, picture: bytes, header: PictureHeader, side: int, as_bytes: bool
    ) -> tuple[Squares, Letterbox, float, float]:
        start = time.perf_counter()
        pixels = decode(picture, self._max_pixels, header)
        decoded = time.perf_counter()
        square, box = letterbox(pixels, side)
        images = square[None] if as_bytes else as_unit_planes(square)
        return images, box, (decoded - start) * 1e3, _since(decoded)

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
    # not num_dets: an engine with fixed thresholds counts by its own, and keeps those below
    count = int((outputs["det_scores"][0] > thresholds.confidence).sum())
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

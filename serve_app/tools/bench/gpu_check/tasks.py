"""The tasks of the processes: one makes the reference and measures track A, the others measure an engine each."""

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from serve_app.detection.tracks import Track
from serve_app.detection.weights import find_weights
from serve_app.errors import QueueFullError, ServeAppError
from serve_app.settings import DetectionSettings
from serve_app.tools.bench.gpu_check.fidelity import Difference, Expected, limits_of
from serve_app.tools.bench.gpu_check.jobs import Fidelity, Job, Message, Part, Reference, Speed
from serve_app.tools.bench.gpu_check.runners import Runner, TorchRunner, TritonRunner
from serve_app.tools.bench.gpu_check.worker import Emit
from serve_app.tools.bench.load import LoadGenerator, Reply
from serve_app.tools.bench.report import count_errors
from serve_app.tools.bench.tracks import TrackResult
from serve_app.tools.export.layout import kind_of, repository_layout
from serve_app.tools.export.repository import build_repository
from serve_app.types import Detection, PictureResult

Answer = tuple[int, PictureResult]  # with the number of its picture

SPARE = 16  # pictures beyond a batch: the first batch leaves before it is full
ROUNDS, ROUNDS_S = 5, 2.0  # limits for the attempts to fill a batch
CONCURRENT_ON_CPU = 12  # a batch of 64 takes a processor ten seconds
REFUSALS, RETRY_S = 50, 0.2  # of a full queue
SETTLE_S = 0.2  # Triton updates its statistics after the answer
NOT_READ = "not all pictures were read by DALI; Triton's log may say why"


async def check_fidelity(runner: Runner, job: Job, part: Part, expected: Sequence[Expected]) -> Fidelity:
    track = job.track_of(part)
    precision, max_batch = runner.precision(track), runner.max_batch(track)
    counters = Counters(runner, track)
    if part.kind == "single":
        answers = [await _detect(runner, track, job, number) for number in range(len(job.pictures))]
    else:
        answers = await _detect_concurrently(runner, track, job, counters)
    await asyncio.sleep(SETTLE_S)
    difference = Difference(limits_of(precision), job.thresholds)
    for number, result in answers:
        difference.add(expected[number], result.detections)
    errors = Counter(result.error for _, result in answers if result.error)
    problems = (*count_errors(errors), *difference.problems(), *counters.problems(len(answers)))
    largest = max(counters.batches(), default=None)
    return Fidelity(part, runner.device, precision, difference, largest, max_batch, problems)


async def measure_speed(runner: Runner, job: Job, part: Part) -> Speed:
    track = job.track_of(part)
    counters = Counters(runner, track)
    answered = 0

    async def send(number: int) -> Reply:
        nonlocal answered
        try:
            result = await runner.detect(track, job.pictures[number % len(job.pictures)], job.thresholds)
        except ServeAppError as problem:
            return Reply(problem.message)
        answered += not result.error
        return Reply(result.error or "")

    result = await LoadGenerator(job.load, send).run()
    await asyncio.sleep(SETTLE_S)
    row = TrackResult(track.design.name, track.path, track.model, job.load, result, counters.batches())
    problems = (*result.problems, *counters.problems(answered))
    return Speed(part, runner.device, runner.precision(track), row, problems)


class Counters:
    """What Triton's statistics have counted since this object was made."""

    def __init__(self, runner: Runner, track: Track) -> None:
        self._runner, self._track = runner, track
        self._batches, self._read = runner.batches(track), runner.read_by_dali(track)

    def batches(self) -> Counter[int]:
        return self._runner.batches(self._track) - self._batches

    def problems(self, answered: int) -> tuple[str, ...]:
        read = self._runner.read_by_dali(self._track)
        if read is None or self._read is None or read - self._read >= answered:
            return ()
        return (NOT_READ,)


async def _detect(runner: Runner, track: Track, job: Job, number: int) -> Answer:
    for _ in range(REFUSALS):
        try:
            return number, await runner.detect(track, job.pictures[number], job.thresholds)
        except QueueFullError:
            await asyncio.sleep(RETRY_S)
        except ServeAppError as problem:
            return number, PictureResult(error=problem.message, error_status=problem.status)
    error = f"refused by a full queue {REFUSALS} times"
    return number, PictureResult(error=error, error_status=QueueFullError.status)


async def _detect_concurrently(runner: Runner, track: Track, job: Job, counters: Counters) -> list[Answer]:
    """Rounds of more pictures than a batch, until Triton has executed a full batch."""
    largest = runner.max_batch(track)
    size, rounds = (CONCURRENT_ON_CPU, 1) if runner.device == "cpu" else (largest + SPARE, ROUNDS)
    numbers = list(islice(cycle(range(len(job.pictures))), size))
    answers: list[Answer] = []
    started = time.perf_counter()
    for _ in range(rounds):
        answers += await asyncio.gather(*(_detect(runner, track, job, number) for number in numbers))
        await asyncio.sleep(SETTLE_S)
        if max(counters.batches(), default=0) >= largest or time.perf_counter() - started > ROUNDS_S:
            break
    return answers


NO_NMS_IOU, MAX_CANDIDATES = 1.0, 30_000  # no overlap is above it; ultralytics considers no more


def run_baseline(emit: Emit, job: Job) -> None:
    """The reference first, because the detections of all tracks are compared with it."""
    expected: dict[str, tuple[Expected, ...]] = {}
    for size in job.detection.models:
        emit(Message(f"reference of ultralytics, {size}, on the processor"))
        expected[size] = make_reference(job, size)
        emit(Reference(size, expected[size]))
    if not job.tracks:
        return
    runner = TorchRunner(job)
    runner.require_device(job.pictures[0])
    asyncio.run(measure_all(runner, job, expected, emit))


def run_engine(emit: Emit, job: Job, configs: Path | None, expected: Mapping[str, Sequence[Expected]]) -> None:
    """Builds the models, starts Triton and measures; `configs` is a repository whose configs are used."""

    def report(line: str) -> None:
        emit(Message(line))

    job.log.unlink(missing_ok=True)  # of an earlier run
    copy_configs(configs, job.detection)
    build_repository(job.detection, report)
    report("starting Triton")
    with TritonRunner(job, report) as runner:
        asyncio.run(measure_all(runner, job, expected, emit))


async def measure_all(runner: Runner, job: Job, expected: Mapping[str, Sequence[Expected]], emit: Emit) -> None:
    for part in job.parts():
        emit(Message(str(part)))
        if part.kind == "ladder":
            emit(await measure_speed(runner, job, part))
        else:
            emit(await check_fidelity(runner, job, part, expected[part.size]))


def make_reference(job: Job, size: str) -> tuple[Expected, ...]:
    """On the processor in f32, because GPUs may compute convolutions in TF32."""
    from ultralytics import YOLO

    source, thresholds = job.detection.models[size], job.thresholds  # type: ignore[index]
    weights = find_weights(source.weights, job.detection.family, size, job.detection.weights_folder, fetch=False)
    model = YOLO(weights.path, task="detect")

    def predict(pixels: Any, iou: float, max_detections: int) -> tuple[Detection, ...]:
        (result,) = model.predict(
            pixels, imgsz=job.detection.image_size, rect=False, nms=None if source.nms else False, device="cpu",
            conf=thresholds.confidence, iou=iou, max_det=max_detections, verbose=False,
        )  # fmt: skip
        boxes = result.boxes
        rows = zip(boxes.xyxyn.tolist(), boxes.conf.tolist(), boxes.cls.tolist(), strict=True)
        return tuple(
            Detection(x1, y1, x2, y2, score, int(label), model.names[int(label)])
            for (x1, y1, x2, y2), score, label in rows
        )

    def expect(picture: bytes) -> Expected:
        pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
        detections = predict(pixels, thresholds.iou, thresholds.max_detections)
        return Expected(detections, predict(pixels, NO_NMS_IOU, MAX_CANDIDATES))

    return tuple(map(expect, job.pictures))


def copy_configs(source: Path | None, detection: DetectionSettings) -> None:
    """The configs that are served, with their edits; without a source they are written anew."""
    target = detection.model_repository
    kind = kind_of(detection.engine)
    for folder in repository_layout(list(detection.models), detection.image_size, kind):
        for name in ("config.pbtxt", "1/model.py", *(f"configs/{other}.pbtxt" for other in folder.alternatives)):
            copy = target / folder.name / name
            copy.unlink(missing_ok=True)
            if source and (source / folder.name / name).is_file():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / folder.name / name, copy)

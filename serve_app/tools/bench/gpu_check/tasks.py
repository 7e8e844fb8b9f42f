"""The tasks of the processes: the reference and track A in one, each engine in its own."""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from serve_app.detection.weights import find_weights
from serve_app.settings import DetectionSettings
from serve_app.tools.bench.gpu_check.fidelity import Expected
from serve_app.tools.bench.gpu_check.jobs import Job, Message, Reference
from serve_app.tools.bench.gpu_check.measure import check_fidelity, measure_speed
from serve_app.tools.bench.gpu_check.runners import Runner, TorchRunner, TritonRunner
from serve_app.tools.bench.gpu_check.worker import Emit
from serve_app.tools.export.layout import kind_of, repository_layout
from serve_app.tools.export.repository import build_repository
from serve_app.types import Detection

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

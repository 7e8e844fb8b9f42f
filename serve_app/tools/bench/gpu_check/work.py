"""What the processes of a check do: the reference and track A in one, each engine in its own."""

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
from serve_app.tools.bench.gpu_check.measuring import check_fidelity, measure_rung
from serve_app.tools.bench.gpu_check.parts import Job, Reference, Said
from serve_app.tools.bench.gpu_check.runners import Contestant, TorchContestant, TritonContestant
from serve_app.tools.bench.gpu_check.worker import Tell
from serve_app.tools.export.layout import kind_of, repository_layout
from serve_app.tools.export.repository import build_repository
from serve_app.types import Detection

NO_SUPPRESSION, ANY_NUMBER = 1.0, 30_000  # an overlap that none is over, and the most that ultralytics looks at


def run_baseline(tell: Tell, job: Job) -> None:
    """The reference first: without it there is nothing to hold detections against."""
    expected: dict[str, tuple[Expected, ...]] = {}
    for size in job.detection.models:
        tell(Said(f"what ultralytics finds, {size}, on the processor"))
        expected[size] = refer(job, size)
        tell(Reference(size, expected[size]))
    if not job.tracks:
        return
    contestant = TorchContestant(job)
    contestant.require_device(job.pictures[0])
    asyncio.run(measure_all(contestant, job, expected, tell))


def run_engine(tell: Tell, job: Job, configs: Path | None, expected: Mapping[str, Sequence[Expected]]) -> None:
    """Built, started, measured and stopped; `configs` is the repository whose configs are served, if it fits."""

    def say(line: str) -> None:
        tell(Said(line))

    job.log.unlink(missing_ok=True)  # of another run
    take_configs(configs, job.detection)
    build_repository(job.detection, say)
    say("starting Triton")
    with TritonContestant(job, say) as contestant:
        asyncio.run(measure_all(contestant, job, expected, tell))


async def measure_all(contestant: Contestant, job: Job, expected: Mapping[str, Sequence[Expected]], tell: Tell) -> None:
    for part in job.parts():
        tell(Said(str(part)))
        if part.kind == "ladder":
            tell(await measure_rung(contestant, job, part))
        else:
            tell(await check_fidelity(contestant, job, part, expected[part.size]))


def refer(job: Job, size: str) -> tuple[Expected, ...]:
    """In f32 and nothing less: GPUs shorten numbers in convolutions unless they are told not to."""
    from ultralytics import YOLO

    source, thresholds = job.detection.models[size], job.thresholds  # type: ignore[index]
    weights = find_weights(source.weights, job.detection.family, size, job.detection.weights_folder, fetch=False)
    model = YOLO(weights.path, task="detect")

    def predict(pixels: Any, iou: float, most: int) -> tuple[Detection, ...]:
        (result,) = model.predict(
            pixels, imgsz=job.detection.image_size, rect=False, nms=None if source.nms else False, device="cpu",
            conf=thresholds.confidence, iou=iou, max_det=most, verbose=False,
        )  # fmt: skip
        rows = zip(result.boxes.xyxyn.tolist(), result.boxes.conf.tolist(), result.boxes.cls.tolist(), strict=True)
        return tuple(
            Detection(x1, y1, x2, y2, score, int(label), model.names[int(label)])
            for (x1, y1, x2, y2), score, label in rows
        )

    decoded = (cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR) for picture in job.pictures)
    return tuple(
        Expected(
            predict(pixels, thresholds.iou, thresholds.max_detections), predict(pixels, NO_SUPPRESSION, ANY_NUMBER)
        )
        for pixels in decoded
    )


def take_configs(source: Path | None, detection: DetectionSettings) -> None:
    """Configs as they are served, edits included; none where they are written anew. What was built before may stay."""
    target = detection.model_repository
    kind = kind_of(detection.engine)
    for folder in repository_layout(list(detection.models), detection.image_size, kind):
        for name in ("config.pbtxt", "1/model.py", *(f"configs/{other}.pbtxt" for other in folder.alternatives)):
            copy = target / folder.name / name
            copy.unlink(missing_ok=True)
            if source and (source / folder.name / name).is_file():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / folder.name / name, copy)

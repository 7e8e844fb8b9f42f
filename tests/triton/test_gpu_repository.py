"""The repository for GPUs, run on the CPU by a real Triton server: Python engines, batched graphs and DALI.

TensorRT, Triton's DALI backend and CUDA need a GPU; graphs, configs, batching and preprocessing are the same there.
"""

import asyncio

import cv2
import numpy as np
import pytest
from ultralytics import ASSETS, YOLO

from serve_app.detection.tracks import tracks_of
from serve_app.settings import PROJECT_ROOT, DetectionSettings, TritonSettings
from serve_app.tools.export.demo.scenes import draw_scene
from serve_app.tools.export.repository import build_repository
from serve_app.triton.detector import Detector
from serve_app.triton.engine import Engine
from serve_app.triton.overlay import Preparation
from serve_app.triton.protocol import Protocol
from serve_app.triton.repository import ModelRepository
from serve_app.types import Thresholds

WEIGHTS = PROJECT_ROOT / "model_repository" / "weights" / "demo-yolo11n.pt"
SIZES = ((640, 480), (480, 640), (1280, 720), (333, 517))
SIDE = 320  # of the engines: a quarter of the computation
# Each kind of track once: D1 and D2 differ from D3 in their batching only
TRACKS = {track.design.name: track for track in tracks_of(["nano"], ()) if track.design.name in ("B", "C", "D3")}
MODELS = ("yolo_nano", "yolo_nano_end2end", "yolo_preprocess", "yolo_nano_engine_batch", "yolo_nano_gpu_e2e_batch")
THRESHOLDS = (Thresholds(0.25, 0.7), Thresholds(0.1, 0.45))
NEAR = 0.01  # of a threshold: DALI's pixels differ by 1 at most, which may lift a score over it


def as_jpeg(image):
    encoded, data = cv2.imencode(".jpg", image)
    assert encoded
    return data.tobytes()


@pytest.fixture(scope="module")
def pictures():
    scenes = [as_jpeg(draw_scene(seed, size=SIZES[seed % 4]).image) for seed in range(700, 704)]
    return [*scenes, (ASSETS / "bus.jpg").read_bytes()]


@pytest.fixture(scope="module")
def expected(pictures):
    """The detections of ultralytics' predictor on the full square, which every engine gets."""
    model, answers = YOLO(WEIGHTS), {}
    for number, data in enumerate(pictures):
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        for thresholds in THRESHOLDS:
            (result,) = model.predict(
                image, imgsz=SIDE, rect=False, conf=thresholds.confidence - NEAR, iou=thresholds.iou, verbose=False
            )
            boxes = result.boxes
            rows = zip(boxes.xyxyn.numpy(), boxes.conf.tolist(), boxes.cls.int().tolist(), strict=True)
            answers[number, thresholds] = list(rows)
    return answers


@pytest.fixture(scope="module", params=["python-onnxruntime", "python-torch"])
def served(request, tmp_path_factory):
    """The models with one kind of engine, as in a replica."""
    folder = tmp_path_factory.mktemp("repository")
    detection = DetectionSettings(
        model_repository=folder,
        engine=request.param,
        device="cpu",
        models={"nano": {"weights": "demo"}},
        image_size=SIDE,
    )
    build_repository(detection, lambda line: None)
    triton = TritonSettings(name="vision", models=MODELS)
    repository = ModelRepository.of(triton, detection)
    engine = Engine(repository, triton, preparation=Preparation.of(triton, detection, lambda line: None))
    engine.start()
    yield engine, Detector(engine, repository.cards(), detection.max_pixels, 2)
    engine.stop()


def rows_of(result):
    return [((one.x1, one.y1, one.x2, one.y2), one.confidence, one.class_id) for one in result.detections]


def without_near_ones(expected, found, confidence):
    """Leave out detections that one side has just above the threshold and the other just below."""
    sure = [row for row in expected if row[1] > confidence + NEAR]
    near = len([row for row in expected if row[1] <= confidence + NEAR])
    found = sorted(found, key=lambda row: -row[1])
    assert len(sure) <= len(found) <= len(sure) + near
    return sure, found[: len(sure)]


async def test_every_track_finds_what_ultralytics_finds_with_different_thresholds_in_one_batch(
    served, pictures, expected, compare
):
    _, detector = served
    for track in TRACKS.values():
        results = await asyncio.gather(
            *(detector.detect(track, pictures[number], thresholds) for number, thresholds in expected)
        )
        for (number, thresholds), result in zip(expected, results, strict=True):
            rows = without_near_ones(expected[number, thresholds], rows_of(result), thresholds.confidence)
            difference = compare(*rows)
            assert difference.unmatched == 0, (track.design.name, number, thresholds)
            assert difference.worst_iou > 0.99, (track.design.name, number, thresholds)
            assert difference.worst_score < 0.01, (track.design.name, number, thresholds)


async def test_concurrent_pictures_are_one_batch_for_the_engine(served, pictures):
    engine, detector = served
    track = TRACKS["D3"]
    await asyncio.gather(*(detector.detect(track, pictures[0], Thresholds()) for _ in range(24)))
    (row,) = Protocol(engine).statistics("yolo_nano_engine_batch")
    assert max(batch["batch_size"] for batch in row["batch_stats"]) > 3


async def test_a_broken_picture_does_not_fail_the_others(served, pictures):
    _, detector = served
    track = TRACKS["D3"]
    broken = pictures[0][:400] + bytes(200) + pictures[0][-2:]
    given = [pictures[0], broken, pictures[1]]
    first, bad, last = await asyncio.gather(*(detector.detect(track, data, Thresholds()) for data in given))
    assert (bad.error_status, bad.detections) == (422, ())
    assert first.detections
    assert last.detections

"""How tracks get round what an engine can't do: thresholds that are built in, pictures that fail their whole batch."""

import asyncio

import cv2
import numpy as np
import pytest

from serve_app.detection.samples import sample_picture
from serve_app.detection.tracks import DESIGNS, Track
from serve_app.errors import EngineError, InvalidRequestError
from serve_app.triton.detector import LARGE_PIXELS, Detector
from serve_app.triton.engine import Answer, StepTimes
from serve_app.triton.repository import ModelRepository
from serve_app.types import ModelCard, Thresholds

SIDE, LIMIT = 64, 20_000_000
END2END, PIPELINE = (Track(next(d for d in DESIGNS if d.name == name), "nano") for name in ("C", "D2"))
DALI = 'name: "reader"\nbackend: "dali"\nmax_batch_size: 8\n'
ENGINE = 'name: "{name}"\nplatform: "tensorrt_plan"\ninput [ {{ name: "images" data_type: {kind} }} ]\n'
FIXED = {"fixed_iou": 0.7, "least_confidence": 0.05}


def card(name, **more):
    return ModelCard(name, "tensorrt", "cuda", "f16", SIDE, "w.pt", ("thing",), **more)


class FakeEngine:
    """A server with TensorRT and DALI, which can't run here: one object in every picture, and DALI may fail."""

    def __init__(self, repository, dali_fails=False):
        self.repository = repository
        self.asked = []
        self.dali_fails = dali_fails

    async def infer(self, name, inputs, parameters=None):
        (value,) = inputs.values()
        self.asked.append((name, value.dtype, value.shape))
        if name == PIPELINE.model and self.dali_fails:
            raise EngineError("Error when executing Mixed operator decoders__Image")
        if name == "yolo_nano":
            head = np.array([[32, 32, 16, 16, 0.9], [32, 32, 16, 15, 0.8]], np.float32).T
            return Answer({"output0": head[None]}, (StepTimes(name, 0.0, 1.0),))
        outputs = {
            "num_dets": np.array([[1]], np.int32),
            "det_boxes": np.array([[[24, 24, 40, 40], [0, 0, 8, 8], [0, 0, 0, 0]]], np.float32),
            "det_scores": np.array([[0.9, 0.1, 0.0]], np.float32),
            "det_classes": np.zeros((1, 3), np.int32),
            "original_size": np.array([[640, 480]], np.int32),
        }
        return Answer(outputs, (StepTimes("reader", 0.0, 1.0), StepTimes(name, 0.0, 1.0)))


@pytest.fixture
def models(repository):
    repository.add("reader", config=DALI)
    for name, kind in (("yolo_nano", "TYPE_FP32"), (END2END.model, "TYPE_FP32"), ("engine", "TYPE_UINT8")):
        repository.add(name, config=ENGINE.format(name=name, kind=kind))
    repository.add_ensemble(PIPELINE.model, "reader", "engine")
    return repository


def detector(models, without=(), threads=1, **behaviour):
    engine = FakeEngine(ModelRepository(models.path, ["*"], None), **behaviour)
    cards = {name: card(name, **FIXED) for name in (END2END.model, PIPELINE.model, "engine")}
    cards |= {"yolo_nano": card("yolo_nano")}
    return engine, Detector(engine, {name: one for name, one in cards.items() if name not in without}, LIMIT, threads)


@pytest.mark.parametrize("track", [END2END, PIPELINE])
async def test_a_lower_confidence_than_is_counted_is_in_the_answer_as_long_as_the_engine_keeps_it_fake(models, track):
    engine, detecting = detector(models)
    for confidence, found in ((0.25, 1), (0.05, 2), (0.95, 0)):
        result = await detecting.detect(track, sample_picture(), Thresholds(confidence))
        assert len(result.detections) == found
    assert {name for name, _, _ in engine.asked} == {track.model}


@pytest.mark.parametrize("track", [END2END, PIPELINE])
@pytest.mark.parametrize("thresholds", [Thresholds(0.25, 0.5), Thresholds(0.01, 0.7)])
async def test_thresholds_that_are_not_built_in_are_answered_by_the_raw_head_fake(models, track, thresholds):
    engine, detecting = detector(models)
    assert detecting.model_for(track, thresholds) == "yolo_nano"
    result = await detecting.detect(track, sample_picture(), thresholds)
    assert len(result.detections) == 1
    assert [name for name, _, _ in engine.asked] == ["yolo_nano"]


async def test_without_a_raw_head_they_are_refused_with_what_is_built_in_fake(models):
    _, detecting = detector(models, without=("yolo_nano",))
    with pytest.raises(InvalidRequestError, match=r"nano_end2end takes iou=0\.7 and conf=0\.05 or more; for others"):
        await detecting.detect(END2END, sample_picture(), Thresholds(0.25, 0.5))


async def test_a_batch_that_dali_fails_is_read_by_the_replica_and_only_the_broken_picture_fails_fake(models):
    engine, detecting = detector(models, dali_fails=True)
    result = await detecting.detect(PIPELINE, sample_picture(), Thresholds())
    assert len(result.detections) == 1
    assert engine.asked[-1] == ("engine", np.dtype(np.uint8), (1, SIDE, SIDE, 3))
    sound = sample_picture()
    broken = sound[: len(sound) // 2] + bytes(64) + b"\xff\xd9"
    result = await detecting.detect(PIPELINE, broken, Thresholds())
    assert result.error_status == 422


async def test_a_picture_that_is_cut_off_never_reaches_dali_fake(models):
    engine, detecting = detector(models)
    sound = sample_picture()
    result = await detecting.detect(PIPELINE, sound[: len(sound) // 2], Thresholds())
    assert (result.error_status, engine.asked) == (422, [])


async def test_large_pictures_join_no_batch_and_leave_a_thread_to_others_fake(models):
    engine, detecting = detector(models, threads=2)
    large = cv2.imencode(".jpg", np.full((4000, LARGE_PIXELS // 4000 + 8, 3), 90, np.uint8))[1].tobytes()
    ended = []

    async def detect(name, picture):
        result = await detecting.detect(PIPELINE, picture, Thresholds())
        assert result.error is None
        ended.append(name)

    await asyncio.gather(detect("large", large), detect("large", large), detect("small", sample_picture()))
    assert ended == ["small", "large", "large"]
    assert sorted(name for name, _, _ in engine.asked) == ["engine", "engine", PIPELINE.model]

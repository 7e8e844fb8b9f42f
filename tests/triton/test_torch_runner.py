"""The PyTorch runner on the CPU: NMS of many pictures at once, and the precision of boxes."""

import json
import shutil

import numpy as np
import pytest
import torch

from serve_app.detection.postprocess import suppress
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.export.demo.scenes import draw_scene
from serve_app.triton.python_models.torch_runner import TorchRunner, suppressed
from serve_app.types import Thresholds

WEIGHTS = PROJECT_ROOT / "model_repository" / "weights" / "demo-yolo11n.pt"
CLASSES, ANCHORS = 80, 400
END2END = ["num_dets", "det_boxes", "det_scores", "det_classes"]


def heads(pictures):
    generator = np.random.default_rng(7)
    centres = generator.uniform(300, 640, (pictures, 2, ANCHORS))
    sizes = generator.uniform(40, 120, (pictures, 2, ANCHORS))
    scores = generator.uniform(0, 0.2, (pictures, CLASSES, ANCHORS))
    labels = generator.integers(60, CLASSES, (pictures, ANCHORS))
    apart = generator.permutation(np.linspace(0.3, 1, pictures * ANCHORS)).reshape(pictures, 1, ANCHORS)  # no ties
    np.put_along_axis(scores, labels[:, None], apart, axis=1)
    return np.concatenate((centres, sizes, scores), axis=1).astype(np.float32)


def test_a_picture_gets_the_same_detections_alone_and_in_a_batch():
    raw = torch.from_numpy(heads(64))
    together = suppressed(raw, 0.25, 0.45)
    for number in range(0, 64, 7):
        for whole, alone in zip(together, suppressed(raw[number : number + 1], 0.25, 0.45), strict=True):
            assert torch.equal(whole[number], alone[0])


def test_nms_in_the_runner_equals_nms_outside():
    raw = heads(3)
    counts, boxes, scores, labels = suppressed(torch.from_numpy(raw), 0.25, 0.45)
    for number in range(3):
        expected_boxes, expected_scores, expected_labels = suppress(raw[number], Thresholds(0.25, 0.45))
        count = int(counts[number])
        assert count == len(expected_scores) > 20
        assert np.allclose(scores[number, :count], expected_scores)
        assert np.array_equal(labels[number, :count], expected_labels)
        assert np.allclose(boxes[number, :count], expected_boxes, atol=1e-3)


@pytest.fixture
def runner(tmp_path):
    def make(precision, device="cpu"):
        shutil.copyfile(WEIGHTS, tmp_path / "model.pt")
        (tmp_path / "model.json").write_text(json.dumps({"precision": precision, "nms": True}))
        return TorchRunner(tmp_path, device, END2END)

    return make


def test_boxes_are_decoded_in_fp32_whatever_the_precision_of_convolutions(runner):
    square = draw_scene(3, size=(640, 640)).image[:, :, ::-1][None].copy()
    full, half = (runner(precision).run(square, (0.4, 0.7)) for precision in ("f32", "bf16"))
    count = int(full[0][0, 0])
    assert count == int(half[0][0, 0]) > 2
    assert {one.dtype for one in half[1:3]} == {np.dtype(np.float32)}
    assert np.abs(half[1][0, :count] - full[1][0, :count]).max() < 2  # pixels; steps of bf16 near 600 are 4
    assert not np.array_equal(half[1], torch.from_numpy(half[1]).bfloat16().float().numpy())


def test_the_runner_for_a_gpu_raises_without_one(runner):
    with pytest.raises(RuntimeError, match="PyTorch finds no GPU: install the driver, and a PyTorch built for CUDA"):
        runner("f16", "cuda")

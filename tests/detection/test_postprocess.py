"""Boxes, scores and classes equal those of ultralytics' post-processing."""

import numpy as np
import pytest
import torch
import torchvision  # noqa: F401 - ultralytics' NMS takes torchvision's when it is loaded
from ultralytics.utils.nms import non_max_suppression
from ultralytics.utils.ops import scale_boxes

from serve_app.detection.postprocess import require_classes, suppress, to_detections
from serve_app.detection.preprocess import Letterbox
from serve_app.errors import InvalidRequestError
from serve_app.types import Thresholds


def crowded_head(seed, classes=5, anchors=2000):
    """A raw head with many boxes over each other."""
    generator = np.random.default_rng(seed)
    centres = generator.uniform(50, 590, (2, anchors))
    sizes = generator.uniform(20, 200, (2, anchors))
    scores = generator.beta(0.5, 3, (classes, anchors))
    return np.concatenate((centres, sizes, scores)).astype(np.float32)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "thresholds",
    [
        Thresholds(),
        Thresholds(0.6, 0.3),
        Thresholds(0.001, 0.95),
        Thresholds(0.3, 0.5, 10),
        Thresholds(0.3, 0.5, 300, (1, 3)),
        Thresholds(1.0),
        Thresholds(0.0, 0.0),
    ],
    ids=["default", "strict", "lax", "ten", "classes", "none", "all"],
)
def test_nms_equals_that_of_ultralytics(seed, thresholds):
    head = crowded_head(seed)
    (expected,) = non_max_suppression(
        torch.from_numpy(head[None].copy()),
        thresholds.confidence,
        thresholds.iou,
        classes=list(thresholds.classes) if thresholds.classes else None,
        max_det=thresholds.max_detections,
    )
    boxes, scores, labels = suppress(head, thresholds)
    assert np.allclose(scores, expected[:, 4].numpy(), atol=1e-6)
    assert np.array_equal(labels, expected[:, 5].numpy().astype(int))
    assert np.allclose(boxes, expected[:, :4].numpy(), atol=1e-3)


def test_the_rows_of_an_end_to_end_head_are_only_filtered():
    rows = np.array(
        [[0, 0, 10, 10, 0.9, 1], [0, 0, 10, 10, 0.8, 1], [5, 5, 9, 9, 0.5, 2], [1, 1, 2, 2, 0.1, 0]], np.float32
    )
    _, scores, labels = suppress(rows, Thresholds(0.25, 0.5))
    assert scores.tolist() == pytest.approx([0.9, 0.8, 0.5])
    assert labels.tolist() == [1, 1, 2]
    assert suppress(rows, Thresholds(0.25, classes=(2,)))[2].tolist() == [2]
    assert len(suppress(rows, Thresholds(0.0, max_detections=2))[0]) == 2


@pytest.mark.parametrize(("width", "height"), [(640, 480), (810, 1080), (1283, 719), (3, 2000), (1, 1)])
def test_boxes_are_scaled_to_the_original_picture_as_by_ultralytics(width, height):
    boxes = np.random.default_rng(width).uniform(-20, 660, (50, 4)).astype(np.float32)
    expected = scale_boxes((640, 640), boxes.copy(), (height, width)) / np.array([width, height] * 2)
    detections = to_detections(
        boxes, np.full(50, 0.5, np.float32), np.zeros(50, np.int32), Letterbox.fit(width, height, 640), ["thing"]
    )
    found = np.array([[one.x1, one.y1, one.x2, one.y2] for one in detections])
    assert np.allclose(found, expected, atol=1e-5)
    assert found.min() >= 0
    assert found.max() <= 1
    assert detections[0].class_name == "thing"


def test_a_class_without_a_name_gets_its_number_as_name():
    (one,) = to_detections(
        np.zeros((1, 4), np.float32), np.ones(1, np.float32), np.array([7], np.int32), Letterbox.fit(9, 9, 64), ["a"]
    )
    assert (one.class_id, one.class_name) == (7, "7")


def test_a_class_that_the_model_does_not_know_is_refused():
    for known in (None, (), (0, 2)):
        require_classes(Thresholds(classes=known), ["a", "b", "c"])
    with pytest.raises(InvalidRequestError, match=r"^classes must be from 0 to 2 for this model, got 3$"):
        require_classes(Thresholds(classes=(1, 3)), ["a", "b", "c"])

"""NMS in a graph equals NMS outside: with thresholds as inputs, with fixed ones, and with TensorRT's plugin."""

import cv2
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from serve_app.detection.onnx_graph import is_end_to_end
from serve_app.detection.onnx_nms import LEAST_CONFIDENCE, MAX_DETECTIONS, PLUGIN, add_nms, with_plugin
from serve_app.detection.postprocess import suppress
from serve_app.types import Thresholds

CLASSES, ANCHORS = 6, 500


def passing_through(*shape):
    """A graph whose `output0` is its `images`, so that tests choose the output of the head."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *shape])
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", *shape])
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["output0"])], "raw", [images], [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def run(model, **inputs):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def heads(batch, seed=0):
    generator = np.random.default_rng(seed)
    centres = generator.uniform(50, 590, (batch, 2, ANCHORS))
    sizes = generator.uniform(20, 200, (batch, 2, ANCHORS))
    scores = generator.beta(0.5, 3, (batch, CLASSES, ANCHORS))
    return np.concatenate((centres, sizes, scores), axis=1).astype(np.float32)


def as_input(value):
    return np.array([value], np.float32)


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize(("confidence", "iou"), [(0.25, 0.7), (0.6, 0.3), (0.001, 0.95), (1.0, 0.5)])
def test_nms_in_the_graph_equals_nms_outside(batch, confidence, iou):
    raw = heads(batch)
    raw[batch // 2, 4:] *= batch == 1  # an empty picture among others
    model = add_nms(passing_through(4 + CLASSES, ANCHORS))
    assert [node.op_type for node in model.graph.node].count("NonMaxSuppression") == 1
    answer = run(model, images=raw, score_threshold=as_input(confidence), iou_threshold=as_input(iou))
    assert answer["det_boxes"].shape == (batch, MAX_DETECTIONS, 4)
    for number in range(batch):
        expected = suppress(raw[number], Thresholds(confidence, iou))
        assert answer["num_dets"][number, 0] == len(expected[1])
        require_equal(answer, number, expected)
        assert not answer["det_scores"][number, len(expected[1]) :].any()


def test_the_rows_of_an_end_to_end_head_are_returned_unchanged():
    generator = np.random.default_rng(1)
    rows = generator.uniform(0, 640, (3, MAX_DETECTIONS, 6)).astype(np.float32)
    rows[..., 4] = np.sort(generator.uniform(0, 1, (3, MAX_DETECTIONS)))[:, ::-1]
    rows[..., 5] = generator.integers(0, CLASSES, (3, MAX_DETECTIONS))
    raw = passing_through(MAX_DETECTIONS, 6)
    assert is_end_to_end(raw)
    answer = run(add_nms(raw), images=rows, score_threshold=as_input(0.5), iou_threshold=as_input(0.7))
    for number in range(3):
        boxes, scores, labels = suppress(rows[number], Thresholds(0.5))
        count = answer["num_dets"][number, 0]
        assert count == len(scores) > 0
        assert np.array_equal(answer["det_boxes"][number, :count], boxes)
        assert np.array_equal(answer["det_classes"][number, :count], labels)


def require_equal(answer, number, expected):
    boxes, scores, labels = expected
    count = len(scores)
    assert np.allclose(answer["det_scores"][number, :count], scores)
    assert np.array_equal(answer["det_classes"][number, :count], labels)
    assert np.allclose(answer["det_boxes"][number, :count], boxes, atol=1e-3)


def test_a_graph_with_fixed_thresholds_returns_lower_scores_after_those_it_counts():
    raw = heads(3)
    model = add_nms(passing_through(4 + CLASSES, ANCHORS), Thresholds(0.6, 0.3))
    assert [one.name for one in model.graph.input] == ["images"]
    answer = run(model, images=raw)
    for number in range(3):
        counted = len(suppress(raw[number], Thresholds(0.6, 0.3))[1])
        assert answer["num_dets"][number, 0] == counted
        expected = suppress(raw[number], Thresholds(LEAST_CONFIDENCE, 0.3))
        assert len(expected[1]) > counted
        require_equal(answer, number, expected)


def test_rows_are_padded_where_a_head_has_fewer_anchors_than_detections():
    raw = heads(2)[:, :, :21]
    answer = run(add_nms(passing_through(4 + CLASSES, 21), Thresholds(0.1, 0.7)), images=raw)
    for number in range(2):
        expected = suppress(raw[number], Thresholds(0.1, 0.7))
        assert answer["num_dets"][number, 0] == len(expected[1]) > 3
        require_equal(answer, number, expected)
        assert answer["det_boxes"].shape == (2, MAX_DETECTIONS, 4)


class FakePlugin(OpRun):
    """EfficientNMS_TRT as TensorRT documents it, with OpenCV: every class of every anchor, best first."""

    op_domain = "TRT"

    def _run(self, boxes, scores, score_threshold=None, iou_threshold=None, max_output_boxes=None, **attributes):
        assert attributes["box_coding"] == attributes["score_activation"] == attributes["class_agnostic"] == 0
        assert attributes["background_class"] == -1
        outputs = [np.zeros((len(boxes), 1), np.int32), np.zeros((len(boxes), max_output_boxes, 4), np.float32)]
        outputs += [np.zeros((len(boxes), max_output_boxes), kind) for kind in (np.float32, np.int32)]
        for number, (corners, of_classes) in enumerate(zip(boxes, scores, strict=True)):
            anchors, labels = np.nonzero(of_classes > score_threshold)
            found = of_classes[anchors, labels]
            sides = np.concatenate((corners[:, :2], corners[:, 2:] - corners[:, :2]), axis=1)[anchors]
            kept = np.array(cv2.dnn.NMSBoxesBatched(sides, found, labels, score_threshold, iou_threshold), int)
            kept = kept[np.argsort(-found[kept], kind="stable")][:max_output_boxes]
            outputs[0][number] = len(kept)
            for output, values in zip(outputs[1:], (corners[anchors], found, labels), strict=True):
                output[number, : len(kept)] = values[kept]
        return tuple(outputs)


FakePlugin.__name__ = PLUGIN


@pytest.mark.parametrize(("confidence", "iou"), [(0.25, 0.7), (0.6, 0.3)])
def test_with_a_fake_of_tensorrts_plugin_the_graph_returns_what_it_returns_without(confidence, iou):
    batch, thresholds = 3, Thresholds(confidence, iou)
    raw = heads(batch)
    model = with_plugin(add_nms(passing_through(4 + CLASSES, ANCHORS), thresholds))
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count(PLUGIN) == 1
    assert "NonMaxSuppression" not in kinds
    evaluator = ReferenceEvaluator(model, new_ops=[FakePlugin])
    answer = dict(zip(evaluator.output_names, evaluator.run(None, {"images": raw}), strict=True))
    for number in range(batch):
        assert answer["num_dets"][number, 0] == len(suppress(raw[number], thresholds)[1])
        require_equal(answer, number, suppress(raw[number], Thresholds(LEAST_CONFIDENCE, iou)))


def test_an_end_to_end_head_gets_no_plugin():
    model = add_nms(passing_through(MAX_DETECTIONS, 6), Thresholds())
    assert with_plugin(model) == model

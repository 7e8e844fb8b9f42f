"""The surgery on the graphs: NMS inside the graph answers what NMS outside of it answers."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from serve_app.detection.postprocess import suppress
from serve_app.export.onnx_graph import MAX_DETECTIONS, accept_uint8, add_nms, is_end_to_end
from serve_app.types import Thresholds

CLASSES, ANCHORS = 6, 500


def passing_through(*shape):
    """A graph whose `output0` is its `images`: the tests decide what the head says."""
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *shape])
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", *shape])
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["output0"])], "raw", [images], [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


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


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize(("confidence", "iou"), [(0.25, 0.7), (0.6, 0.3), (0.001, 0.95), (1.0, 0.5)])
def test_nms_in_the_graph_equals_nms_outside(batch, confidence, iou):
    raw = heads(batch)
    model = add_nms(passing_through(4 + CLASSES, ANCHORS))
    answer = run(model, images=raw, score_threshold=as_input(confidence), iou_threshold=as_input(iou))
    assert answer["det_boxes"].shape == (batch, MAX_DETECTIONS, 4)
    for number in range(batch):
        boxes, scores, labels = suppress(raw[number], Thresholds(confidence, iou))
        count = answer["num_dets"][number, 0]
        assert count == len(scores)
        assert np.allclose(answer["det_scores"][number, :count], scores)
        assert np.array_equal(answer["det_classes"][number, :count], labels)
        assert np.allclose(answer["det_boxes"][number, :count], boxes, atol=1e-3)
        assert not answer["det_scores"][number, count:].any()


def test_there_is_one_nms_for_the_whole_batch():
    model = add_nms(passing_through(4 + CLASSES, ANCHORS))
    assert [node.op_type for node in model.graph.node].count("NonMaxSuppression") == 1


def test_an_empty_picture_among_others_stays_empty():
    raw = heads(3)
    raw[1, 4:] = 0
    model = add_nms(passing_through(4 + CLASSES, ANCHORS))
    answer = run(model, images=raw, score_threshold=as_input(0.3), iou_threshold=as_input(0.7))
    assert answer["num_dets"][:, 0].tolist()[1] == 0
    assert answer["num_dets"][0, 0] > 0
    assert answer["num_dets"][2, 0] == len(suppress(raw[2], Thresholds(0.3, 0.7))[0])


def test_the_rows_of_an_end_to_end_head_pass_as_they_are():
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


def test_bytes_of_a_picture_are_scaled_and_turned_inside_the_graph():
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 32, 32])
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", 3, 32, 32])
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["output0"])], "raw", [images], [output])
    model = accept_uint8(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    pictures = np.random.default_rng(2).integers(0, 256, (2, 32, 32, 3), np.uint8)
    (answer,) = run(model, images=pictures).values()
    assert np.allclose(answer, pictures.transpose(0, 3, 1, 2) / 255, atol=1e-7)
    onnx.checker.check_model(model)

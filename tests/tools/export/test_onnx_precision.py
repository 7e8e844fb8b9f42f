"""What reduced graphs for GPUs cost, under ONNX Runtime: mean average precision, and how much of a graph is reduced."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest

from serve_app.detection.onnx_graph import export_raw_head
from serve_app.detection.onnx_nms import add_nms
from serve_app.detection.preprocess import as_unit_planes
from serve_app.tools.export.calibration import calibration_squares
from serve_app.tools.export.onnx_precision import decoding_nodes, reduced
from serve_app.types import Thresholds

SQUARES = 32
OUTERMOST = re.compile(
    r"model\.0/|/cv[23]\.\d/cv[23]\.\d\.2/|dfl"
)  # the first, those that boxes are read from, and decoding


@pytest.fixture(scope="module")
def raw(tmp_path_factory, demo_weights):
    return onnx.load(export_raw_head(demo_weights, 640, tmp_path_factory.mktemp("raw")))


@pytest.fixture(scope="module")
def graphs(raw):
    squares = list(calibration_squares(None, 640))[:SQUARES]
    return {precision: reduced(raw, precision, squares) for precision in ("f32", "f16", "int8", "fp8")}


def session_of(graph):
    options = onnxruntime.SessionOptions()
    # ONNX Runtime's own quantized convolution knows no FP8, and would be put in the place of ours
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(graph.SerializeToString(), options)


def answers_of(graph):
    session = session_of(add_nms(graph, Thresholds(0.001, 0.7)))
    return lambda square: session.run(None, {"images": as_unit_planes(square)})


@pytest.mark.parametrize(
    ("precision", "number", "allowed"), [("f16", 60, 0.005), ("int8", 60, 0.005), ("fp8", 24, 0.02)]
)
def test_reduced_precision_loses_next_to_nothing(precision, number, allowed, graphs, scenes, mean_average_precision):
    """FP8 has three bits for a value and loses more; on fewer scenes, because a processor takes a second for each."""
    full = mean_average_precision(answers_of(graphs["f32"]), scenes[:number])
    less = mean_average_precision(answers_of(graphs[precision]), scenes[:number])
    print(f"\n  mAP50-95 of {number} scenes: f32 {full:.4f}, {precision} {less:.4f}")
    assert full > 0.8
    assert full - less < allowed


def kinds_of_convolutions(graph):
    """Types of the weights that convolutions between the outermost ones compute with."""
    constants = {one.name: one.data_type for one in graph.graph.initializer}
    made = {output: node for node in graph.graph.node for output in node.output}
    for node in graph.graph.node:
        if node.op_type == "Conv" and not OUTERMOST.search(node.name):
            weights = node.input[1]
            source = made[weights].input[0] if weights in made else weights
            yield onnx.TensorProto.DataType.Name(constants[source])


@pytest.mark.parametrize(
    ("precision", "kind"), [("f32", "FLOAT"), ("f16", "FLOAT16"), ("int8", "INT8"), ("fp8", "FLOAT8E4M3FN")]
)
def test_every_convolution_is_in_the_precision_that_was_asked_for(precision, kind, graphs):
    assert set(kinds_of_convolutions(graphs[precision])) == {kind}
    onnx.checker.check_model(add_nms(graphs[precision], Thresholds()), full_check=True)


def test_boxes_are_decoded_in_fp32_whatever_the_convolutions_are_in(raw, graphs):
    picture = as_unit_planes(next(calibration_squares(None, 640)))
    full, half = (session_of(graphs[precision]).run(None, {"images": picture})[0] for precision in ("f32", "f16"))
    assert half.dtype == np.float32
    assert not np.array_equal(half, half.astype(np.float16).astype(np.float32))
    sure = full[0, 4:].max(axis=0) > 0.5
    assert sure.sum() > 20
    assert np.abs(half[0, :4, sure] - full[0, :4, sure]).max() < 0.2  # pixels; half steps near 640 are 0.5
    assert any("dfl" in name for name in decoding_nodes(raw))


@pytest.mark.parametrize("precision", ["f32", "f16", "int8"])
def test_a_batch_is_answered_as_its_pictures_are_one_by_one(precision, graphs):
    session = session_of(add_nms(graphs[precision], Thresholds()))
    pictures = [as_unit_planes(square) for square in list(calibration_squares(None, 640))[:3]]
    together = session.run(None, {"images": np.concatenate(pictures)})
    for number, picture in enumerate(pictures):
        for whole, alone in zip(together, session.run(None, {"images": picture}), strict=True):
            assert np.allclose(whole[number], alone[0], atol=0.05)

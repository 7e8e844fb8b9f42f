"""Reduced graphs for GPUs, run by ONNX Runtime: their accuracy, and which parts are reduced."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest

from serve_app.detection import onnx_graph
from serve_app.detection.onnx_nms import add_nms
from serve_app.detection.preprocess import as_unit_planes
from serve_app.tools.export.calibration import calibration_squares
from serve_app.tools.export.onnx_precision import decoding_nodes, reduced
from serve_app.types import Thresholds

WEIGHT_TYPES = {"f32": "FLOAT", "f16": "FLOAT16", "int8": "INT8", "fp8": "FLOAT8E4M3FN"}
# The first convolution, the last ones, and the decoding of boxes
OUTERMOST = re.compile(r"model\.0/|/cv[23]\.\d/cv[23]\.\d\.2/|dfl")


@pytest.fixture(scope="module")
def raw(tmp_path_factory, demo_weights):
    return onnx.load(onnx_graph.export_raw_head(demo_weights, 320, tmp_path_factory.mktemp("raw")))


@pytest.fixture(scope="module")
def graphs(raw, calibration_crops):
    return {precision: reduced(raw, precision, calibration_crops) for precision in WEIGHT_TYPES}


def session_of(graph):
    options = onnxruntime.SessionOptions()
    # ONNX Runtime would replace our quantized convolutions by its own, which don't support FP8
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(graph.SerializeToString(), options)


def answers_of(graph):
    session = session_of(add_nms(graph, Thresholds(0.001, 0.7)))
    return lambda square: session.run(None, {"images": as_unit_planes(square)})


def test_reduced_graphs_find_what_the_full_graph_finds(graphs, crops, mean_average_precision):
    """A sample with a wide margin; `make slow` measures the loss on whole scenes."""
    full = mean_average_precision(answers_of(graphs["f32"]), crops)
    assert full > 0.85
    for precision in ("f16", "int8", "fp8"):
        assert mean_average_precision(answers_of(graphs[precision]), crops) > full - 0.02, precision


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "number", "allowed"), [("f16", 60, 0.005), ("int8", 60, 0.005), ("fp8", 24, 0.02)]
)
def test_reduced_precision_loses_no_more_accuracy_than_promised(
    precision, number, allowed, tmp_path, demo_weights, scenes, mean_average_precision
):
    """FP8 has three bits of mantissa and loses more; on fewer scenes, because a CPU takes a second for each."""
    raw = onnx.load(onnx_graph.export_raw_head(demo_weights, 640, tmp_path))
    graph = reduced(raw, precision, list(calibration_squares(None, 640))[:32])
    full = mean_average_precision(answers_of(raw), scenes[:number])
    less = mean_average_precision(answers_of(graph), scenes[:number])
    print(f"\n  mAP50-95 of {number} scenes: f32 {full:.4f}, {precision} {less:.4f}")
    assert full > 0.8
    assert full - less < allowed


def weight_types_of_convolutions(graph):
    constants = {one.name: one.data_type for one in graph.graph.initializer}
    made = {output: node for node in graph.graph.node for output in node.output}
    for node in graph.graph.node:
        if node.op_type == "Conv" and not OUTERMOST.search(node.name):
            weights = node.input[1]
            source = made[weights].input[0] if weights in made else weights
            yield onnx.TensorProto.DataType.Name(constants[source])


def test_every_convolution_but_the_outermost_has_the_requested_precision(graphs):
    for precision, graph in graphs.items():
        assert set(weight_types_of_convolutions(graph)) == {WEIGHT_TYPES[precision]}, precision
        onnx.checker.check_model(add_nms(graph, Thresholds()), full_check=True)


def test_boxes_are_decoded_in_fp32_whatever_the_precision_of_convolutions(raw, graphs, crops):
    assert any("dfl" in name for name in decoding_nodes(raw))
    pictures = np.concatenate([as_unit_planes(square) for square, _, _ in crops])
    full, half = (session_of(graphs[precision]).run(None, {"images": pictures})[0] for precision in ("f32", "f16"))
    assert half.dtype == np.float32
    assert not np.array_equal(half, half.astype(np.float16).astype(np.float32))
    picture, anchor = np.nonzero(full[:, 4:].max(axis=1) > 0.5)
    assert len(anchor) > 20
    # pixels; half precision has steps of 0.25 near 320
    assert np.abs(half[picture, :4, anchor] - full[picture, :4, anchor]).max() < 0.1


def test_a_batch_gets_the_answers_of_its_pictures_one_by_one(graphs, crops):
    pictures = [as_unit_planes(square) for square, _, _ in crops[:3]]
    for precision in ("f32", "f16", "int8"):
        session = session_of(add_nms(graphs[precision], Thresholds()))
        together = session.run(None, {"images": np.concatenate(pictures)})
        for number, picture in enumerate(pictures):
            for batched, single in zip(together, session.run(None, {"images": picture}), strict=True):
                assert np.allclose(batched[number], single[0], atol=0.05), precision

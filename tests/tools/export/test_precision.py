"""The accuracy of OpenVINO engines in reduced precision, as mean average precision on drawn scenes."""

import numpy as np
import onnx
import openvino as ov
import pytest

from serve_app.detection import onnx_graph
from serve_app.detection.onnx_nms import add_nms
from serve_app.settings import DetectionSettings
from serve_app.tools.export.openvino_graph import write_engine
from serve_app.tools.export.repository import build_repository

PROMISED_LOSS = 0.005


def answers_of(graph, precision):
    hint = "bf16" if precision == "bf16" else "f32"
    compiled = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    thresholds = {"score_threshold": np.array([0.001], np.float32), "iou_threshold": np.array([0.7], np.float32)}
    return lambda square: list(compiled({"images": square[None]} | thresholds).values())


def test_bf16_and_int8_engines_find_what_the_f32_engine_finds(
    tmp_path, demo_weights, crops, calibration_crops, mean_average_precision
):
    """A sample with a wide margin; `make slow` measures the promised loss on 120 whole scenes."""
    raw = onnx.load(onnx_graph.export_raw_head(demo_weights, 320, tmp_path))
    tier = onnx_graph.accept_uint8(add_nms(raw))
    write_engine(tier, tmp_path / "f32.xml", ())
    write_engine(tier, tmp_path / "int8.xml", calibration_crops)
    constants = [op for op in ov.Core().read_model(tmp_path / "int8.xml").get_ops() if op.get_type_name() == "Constant"]
    assert sum(op.get_element_type() == ov.Type.i8 for op in constants) > 50
    full = mean_average_precision(answers_of(tmp_path / "f32.xml", "f32"), crops)
    assert full > 0.85
    for precision, graph in (("bf16", "f32.xml"), ("int8", "int8.xml")):
        assert mean_average_precision(answers_of(tmp_path / graph, precision), crops) > full - 0.02, precision


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_reduced_precision_loses_no_more_accuracy_than_promised(
    precision, tmp_path, demo_weights, scenes, mean_average_precision, capsys
):
    measured = {}
    for kind in ("f32", precision):
        models = {"nano": {"weights": str(demo_weights), "precision": kind}}
        build_repository(DetectionSettings(model_repository=tmp_path / kind, models=models), lambda line: None)
        answers = answers_of(tmp_path / kind / "yolo_nano_engine_batch" / "1" / "model.xml", kind)
        measured[kind] = mean_average_precision(answers, scenes)
    with capsys.disabled():
        print(f"\n  mAP50-95 of {len(scenes)} scenes: f32 {measured['f32']:.4f}, {precision} {measured[precision]:.4f}")
    assert measured["f32"] > 0.85
    assert measured[precision] >= measured["f32"] - PROMISED_LOSS

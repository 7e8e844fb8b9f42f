"""What reduced precision costs: mean average precision on held-out drawn scenes, within the promised 0.005."""

import numpy as np
import openvino as ov
import pytest

from serve_app.settings import DetectionSettings
from serve_app.tools.export.repository import build_repository

ALLOWED_LOSS = 0.005


def engine(folder, precision, demo_weights):
    folder.mkdir()
    models = {"nano": {"weights": str(demo_weights), "precision": precision}}
    build_repository(DetectionSettings(model_repository=folder, models=models), lambda line: None)
    hint = "bf16" if precision == "bf16" else "f32"
    graph = folder / "yolo_nano_engine_batch" / "1" / "model.xml"
    compiled = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    thresholds = {"score_threshold": np.array([0.001], np.float32), "iou_threshold": np.array([0.7], np.float32)}
    return lambda square: list(compiled({"images": square[None]} | thresholds).values())


@pytest.fixture(scope="module")
def reference(tmp_path_factory, demo_weights, scenes, mean_average_precision):
    return mean_average_precision(engine(tmp_path_factory.mktemp("f32") / "r", "f32", demo_weights), scenes)


def test_the_reference_is_good(reference):
    assert reference > 0.85


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_reduced_precision_costs_no_more_than_promised(
    precision, reference, tmp_path, demo_weights, scenes, mean_average_precision, capsys
):
    reduced = mean_average_precision(engine(tmp_path / "r", precision, demo_weights), scenes)
    with capsys.disabled():
        print(f"\n  mAP50-95 of {len(scenes)} scenes: f32 {reference:.4f}, {precision} {reduced:.4f}")
    assert reduced >= reference - ALLOWED_LOSS

"""What reduced precision costs: mean average precision on held-out drawn scenes, within the promised 0.005."""

import numpy as np
import openvino as ov
import pytest
from ultralytics.utils.metrics import ap_per_class, box_iou

from serve_app.detection.preprocess import letterbox
from serve_app.export.demo.scenes import draw_scene
from serve_app.export.repository import build_repository
from serve_app.settings import DetectionSettings

SCENES = 120
SIZES = ((640, 640), (640, 480), (480, 640), (1280, 720))
IOUS = np.linspace(0.5, 0.95, 10)
ALLOWED_LOSS = 0.005


@pytest.fixture(scope="module")
def scenes():
    """Letterboxed squares with their true boxes in engine pixels."""
    drawn = []
    for seed in range(SCENES):
        scene = draw_scene(5_000 + seed, size=SIZES[seed % len(SIZES)])
        square, box = letterbox(np.ascontiguousarray(scene.image[:, :, ::-1]), 640)
        gain = np.array([box.inner_width / box.width, box.inner_height / box.height] * 2)
        drawn.append((square, scene.boxes * gain + [box.left, box.top] * 2, scene.classes))
    return drawn


def engine(folder, precision, demo_weights):
    folder.mkdir()
    models = {"nano": {"weights": str(demo_weights), "precision": precision}}
    build_repository(DetectionSettings(model_repository=folder, models=models), lambda line: None)
    hint = "bf16" if precision == "bf16" else "f32"
    graph = folder / "yolo_nano_engine_batch" / "1" / "model.xml"
    return ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": hint})


def mean_average_precision(compiled, scenes):
    columns = [[], [], [], []]
    for square, boxes, classes in scenes:
        answer = compiled(
            {
                "images": square[None],
                "score_threshold": np.array([0.001], np.float32),
                "iou_threshold": np.array([0.7], np.float32),
            }
        )
        count = int(answer["num_dets"][0, 0])
        found, labels = answer["det_boxes"][0, :count], answer["det_classes"][0, :count]
        values = matches(found, labels, boxes, classes), answer["det_scores"][0, :count], labels, classes
        for column, value in zip(columns, values, strict=True):
            column.append(np.array(value))
    precision_per_class = ap_per_class(*(np.concatenate(column) for column in columns))[5]
    return float(precision_per_class.mean())


def matches(found, labels, boxes, classes):
    """Which of the found boxes, best first, are the first to meet a true one, at each IoU."""
    import torch

    hits = np.zeros((len(found), len(IOUS)), bool)
    overlaps = box_iou(torch.from_numpy(boxes).float(), torch.from_numpy(found).float()).numpy()
    overlaps = overlaps * (classes[:, None] == labels[None])
    for column, threshold in enumerate(IOUS):
        free = set(range(len(boxes)))
        for row in range(len(found)):
            candidates = [(overlaps[true, row], true) for true in free if overlaps[true, row] >= threshold]
            if candidates:
                hits[row, column] = True
                free.remove(max(candidates)[1])
    return hits


@pytest.fixture(scope="module")
def reference(tmp_path_factory, demo_weights, scenes):
    return mean_average_precision(engine(tmp_path_factory.mktemp("f32") / "r", "f32", demo_weights), scenes)


def test_the_reference_is_good(reference):
    assert reference > 0.85


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_reduced_precision_costs_no_more_than_promised(precision, reference, tmp_path, demo_weights, scenes, capsys):
    reduced = mean_average_precision(engine(tmp_path / "r", precision, demo_weights), scenes)
    with capsys.disabled():
        print(f"\n  mAP50-95 of {SCENES} scenes: f32 {reference:.4f}, {precision} {reduced:.4f}")
    assert reduced >= reference - ALLOWED_LOSS

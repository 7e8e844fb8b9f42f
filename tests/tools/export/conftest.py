"""Weights of every family, exports that are made once a session, and scenes to measure accuracy on."""

import functools
import shutil

import cv2
import numpy as np
import pytest
from ultralytics.utils.metrics import ap_per_class, box_iou

from serve_app.detection import onnx_graph
from serve_app.detection.preprocess import letterbox
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.export.demo.scenes import draw_scene

MANY_SCENES, FEW_SCENES = 120, 12
CROP_SIDE = 320  # the demo weights were trained on crops of this size first, so that they are good at it
SIZES = ((640, 640), (640, 480), (480, 640), (1280, 720))
IOUS = np.linspace(0.5, 0.95, 10)
DEMO = PROJECT_ROOT / "model_repository" / "weights" / "demo-yolo11n.pt"


@pytest.fixture(scope="session")
def demo_weights():
    return DEMO


@pytest.fixture(scope="session")
def random_weights(tmp_path_factory):
    """Untrained weights of a family, with scores spread so that NMS has something to suppress."""

    @functools.cache
    def make(architecture):
        import torch
        from ultralytics import ASSETS, YOLO

        torch.manual_seed(5)
        model = YOLO(f"{architecture}.yaml", task="detect")
        head = model.model.model[-1]
        with torch.no_grad():
            model.model.train()
            for layer in model.model.modules():
                if isinstance(layer, torch.nn.BatchNorm2d):
                    layer.momentum = 0.3
            pixels = cv2.resize(cv2.imread(str(ASSETS / "bus.jpg")), (320, 320))[None, :, :, ::-1]
            pictures = torch.from_numpy(np.concatenate((pixels, pixels[:, ::-1])).transpose(0, 3, 1, 2) / 255).float()
            for _ in range(20):  # without statistics of a picture the layers pass nothing on
                model.model(pictures)
            model.model.eval()
            for branches in (head.cv3, getattr(head, "one2one_cv3", None) or []):
                for branch in branches:
                    branch[-1].weight.normal_(0, 0.03)
                    branch[-1].bias.fill_(-4.0)
        folder = tmp_path_factory.mktemp("weights")
        model.save(folder / f"{architecture}.pt")
        return folder / f"{architecture}.pt"

    return make


@pytest.fixture(scope="session", autouse=True)
def exported_once(tmp_path_factory):
    """Export each head once a session: an export takes seconds, and the tests need many of the same."""
    export, folder = onnx_graph.export_raw_head, tmp_path_factory.mktemp("exported")
    made = {}

    def export_once(weights, image_size, target, nms=True):
        key = weights.read_bytes(), image_size, nms
        if key not in made:
            made[key] = shutil.copyfile(export(weights, image_size, target, nms), folder / f"{len(made)}.onnx")
        return shutil.copyfile(made[key], target / "raw.onnx")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_graph, "export_raw_head", export_once)
        yield


@pytest.fixture(scope="session")
def crops():
    """A few small scenes with their true boxes in engine pixels, cheap enough for every run."""
    drawn = [
        draw_scene(5_000 + seed, size=(CROP_SIDE, CROP_SIDE), unit=1.0, max_shapes=5) for seed in range(FEW_SCENES)
    ]
    return [(np.ascontiguousarray(scene.image[:, :, ::-1]), scene.boxes, scene.classes) for scene in drawn]


@pytest.fixture(scope="session")
def calibration_crops():
    """Small scenes for calibration, other ones than those that accuracy is measured on."""
    drawn = (draw_scene(1_000_000 + seed, size=(CROP_SIDE, CROP_SIDE), unit=1.0, max_shapes=5) for seed in range(16))
    return [np.ascontiguousarray(scene.image[:, :, ::-1]) for scene in drawn]


@pytest.fixture(scope="session")
def scenes():
    """Letterboxed squares with their true boxes in engine pixels."""
    drawn = []
    for seed in range(MANY_SCENES):
        scene = draw_scene(5_000 + seed, size=SIZES[seed % len(SIZES)])
        square, box = letterbox(np.ascontiguousarray(scene.image[:, :, ::-1]), 640)
        gain = np.array([box.inner_width / box.width, box.inner_height / box.height] * 2)
        drawn.append((square, scene.boxes * gain + [box.left, box.top] * 2, scene.classes))
    return drawn


@pytest.fixture(scope="session")
def mean_average_precision():
    """mAP50-95 over scenes of a function from a square to num_dets, det_boxes, det_scores and det_classes."""
    return average_precision


def average_precision(answer, scenes):
    columns = [[], [], [], []]
    for square, boxes, classes in scenes:
        (count,), boxes_found, scores, labels = (output[0] for output in answer(square))
        found, scores, labels = boxes_found[:count], scores[:count], labels[:count]
        values = matches(found, labels, boxes, classes), scores, labels, classes
        for column, value in zip(columns, values, strict=True):
            column.append(np.array(value))
    precision_per_class = ap_per_class(*(np.concatenate(column) for column in columns))[5]
    return float(precision_per_class.mean())


def matches(found, labels, boxes, classes):
    """Which of the found boxes, best first, match a true box that no earlier one matched, at each IoU."""
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

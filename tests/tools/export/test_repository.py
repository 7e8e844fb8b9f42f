"""From weights to a repository that Triton can load; only what is missing or out of date is built."""

import fcntl
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import openvino as ov
import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig
from ultralytics import ASSETS, YOLO

from serve_app.detection.postprocess import keep_wanted, suppress, to_detections
from serve_app.detection.preprocess import as_unit_planes, letterbox
from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT, DetectionSettings
from serve_app.tools.export.demo.shapes import CLASS_NAMES
from serve_app.tools.export.layout import ON_CPU, ON_GPU, repository_layout
from serve_app.tools.export.repository import build_repository
from serve_app.types import Thresholds

SMALL = 64  # for tests that don't depend on the size of pictures
SIDE = 320


def build(folder, weights, lines=None, side=SMALL, force=False, **source):
    models = {"nano": {"weights": str(weights)} | source}
    settings = DetectionSettings(model_repository=folder, models=models, image_size=side)
    return build_repository(settings, (lambda line: None) if lines is None else lines.append, force=force)


@pytest.fixture(scope="module")
def built(tmp_path_factory, demo_weights):
    """A complete repository, and the lines of progress of its build."""
    folder = tmp_path_factory.mktemp("repository")
    lines = []
    assert build(folder, demo_weights, lines) > 0
    return folder, lines


def test_a_complete_repository_has_every_model_with_its_files_and_is_not_built_twice(built, demo_weights):
    folder, lines = built
    assert lines[0] == "[1/6] yolo: raw head, OpenVINO f32, from demo-yolo11n.pt"
    assert lines[-1].startswith("built 6 models in ")
    names = {path.name for path in folder.iterdir() if path.is_dir()}
    engines = {f"yolo_nano_engine_{tier}" for tier in ("streaming", "balanced", "batch")}
    pipelines = {"yolo_nano_gpu_e2e_streaming", "yolo_nano_gpu_e2e", "yolo_nano_gpu_e2e_batch"}
    assert names == {"yolo", "yolo_preprocess", "yolo_nano", "yolo_nano_end2end"} | engines | pipelines
    for name in names:
        config = text_format.Parse((folder / name / "config.pbtxt").read_text(), ModelConfig())
        assert config.name == name
        assert (folder / name / "1" / "model.py").is_file() == (config.backend == "python")
    assert (folder / "yolo_nano" / "labels.txt").read_text().split() == list(CLASS_NAMES)
    again = []
    assert build(folder, demo_weights, again) == 0
    assert again == []


def test_models_are_built_again_for_another_precision_and_after_an_interrupted_build(built, demo_weights):
    folder, _ = built
    card = folder / "yolo_nano" / "1" / "model.json"
    (folder / "yolo_nano" / "1" / "model.bin").unlink()
    lines = []
    assert build(folder, demo_weights, lines) == 1
    assert lines[0].startswith("[1/1] yolo_nano:")
    card.write_text(card.read_text()[:20])
    assert build(folder, demo_weights) == 1
    assert json.loads(card.read_text())["name"] == "yolo_nano"
    assert build(folder, demo_weights, precision="bf16") == 6
    assert json.loads(card.read_text())["precision"] == "bf16"
    build(folder, demo_weights)


def test_an_edited_config_is_kept_and_one_for_another_image_size_is_refused(built, demo_weights):
    folder, _ = built
    path = folder / "yolo_nano" / "config.pbtxt"
    edited = path.read_text().replace("count: 1", "count: 2")
    path.write_text(edited)
    build(folder, demo_weights, force=True)
    assert path.read_text() == edited
    with pytest.raises(ConfigurationError, match=r"is for an image_size of 64, but .*image_size is 96: delete"):
        build(folder, demo_weights, side=96)


def test_committed_configs_are_those_that_a_build_writes():
    for kind, name in ((ON_CPU, "cpu"), (ON_GPU, "gpu")):
        for model in repository_layout(["nano"], 640, kind):
            folder = PROJECT_ROOT / "model_repository" / name / model.name
            assert (folder / "config.pbtxt").read_text() == model.config
            for alternative, text in model.alternatives.items():
                assert (folder / "configs" / f"{alternative}.pbtxt").read_text() == text
            if model.model_py:
                assert (folder / "1" / "model.py").read_text() == model.model_py


def test_a_config_names_the_inputs_and_outputs_of_its_engine(built):
    folder, _ = built
    for model in repository_layout(["nano"], SMALL):
        if model.graph is None:
            continue
        graph = ov.Core().read_model(folder / model.name / "1" / "model.xml")
        config = text_format.Parse(model.config, ModelConfig())
        inputs = {name for port in graph.inputs for name in port.get_names()}
        outputs = {name for port in graph.outputs for name in port.get_names()}
        assert {one.name for one in config.input} == inputs - {"score_threshold", "iou_threshold"}
        assert {one.name for one in config.output} <= outputs
        assert list(config.input[0].dims) == [dim.get_length() for dim in list(graph.input("images").partial_shape)[1:]]


def end_to_end(folder, square, thresholds):
    compiled = ov.Core().compile_model(
        folder / "yolo_nano_engine_batch" / "1" / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    answer = compiled(
        {
            "images": square[None],
            "score_threshold": np.array([thresholds.confidence], np.float32),
            "iou_threshold": np.array([thresholds.iou], np.float32),
        }
    )
    count = int(answer["num_dets"][0, 0])
    return keep_wanted(
        answer["det_boxes"][0, :count], answer["det_scores"][0, :count], answer["det_classes"][0, :count], thresholds
    )


@pytest.mark.parametrize(
    ("architecture", "nms"), [("yolov8n", True), ("yolo11n", True), ("yolo26n", True), ("yolo26n", False)]
)
def test_engines_of_every_family_answer_what_ultralytics_answers(architecture, nms, random_weights, tmp_path, compare):
    weights = random_weights(architecture)
    build(tmp_path, weights, side=SIDE, nms=nms)
    bus = cv2.resize(cv2.imread(str(ASSETS / "bus.jpg")), (SIDE, SIDE))
    square, box = letterbox(cv2.cvtColor(bus, cv2.COLOR_BGR2RGB), SIDE)
    raw_engine = ov.Core().compile_model(
        tmp_path / "yolo_nano" / "1" / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    head = raw_engine({"images": as_unit_planes(square)})["output0"][0]
    assert (head.shape[-1] == 6) == (not nms)
    scores = np.sort(head[:, 4] if head.shape[-1] == 6 else head[4:].max(axis=0))[-200:]
    widest = int(np.diff(scores[:150]).argmax())  # a threshold far from any score
    thresholds = Thresholds(float(scores[widest : widest + 2].mean()), 0.5)
    (result,) = YOLO(weights).predict(
        bus, imgsz=SIDE, rect=False, conf=thresholds.confidence, iou=0.5, nms=None if nms else False, verbose=False
    )
    boxes = result.boxes
    expected = list(zip(boxes.xyxyn.numpy(), boxes.conf.tolist(), boxes.cls.tolist(), strict=True))
    for answer in (suppress(head, thresholds), end_to_end(tmp_path, square, thresholds)):
        detections = to_detections(*answer, box, result.names)
        found = [((one.x1, one.y1, one.x2, one.y2), one.confidence, one.class_id) for one in detections]
        difference = compare(expected, found)
        assert difference.expected > 10
        # scores of untrained weights nearly tie, and then rounding decides which box stays
        assert difference.unmatched <= (0.1 * difference.expected if architecture == "yolo26n" else 0)
        assert difference.worst_iou > 0.99
        assert difference.worst_score < 0.01


def test_weights_that_can_not_be_built_from_and_concurrent_builds_are_refused(tmp_path, demo_weights):
    with pytest.raises(ConfigurationError, match=r"nms: false needs a head without NMS, and demo-yolo11n\.pt has none"):
        build(tmp_path, demo_weights, nms=False)
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"not a checkpoint")
    with pytest.raises(ConfigurationError, match=r"weights .*broken.pt can't be read"):
        build(tmp_path, broken)
    with (tmp_path / ".build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigurationError, match="another build is running"):
            build(tmp_path, demo_weights)


def command(*arguments):
    return subprocess.run(
        [sys.executable, PROJECT_ROOT / "scripts" / "build_models", *arguments],
        cwd=PROJECT_ROOT, capture_output=True, text=True, env=os.environ | {"YOLO_OFFLINE": "true"},
    )  # fmt: skip


def test_the_command_builds_nothing_for_a_configuration_without_detection(tmp_path):
    answer = command("--config", "configs/serve.llama2.yaml", "--repository", str(tmp_path))
    assert answer.returncode == 0
    assert answer.stdout == "configs/serve.llama2.yaml configures no detection: no models to build\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--config", "nowhere.yaml"], "error: nowhere.yaml: No such file or directory"),
        (["--size", "small", "--weights", "nowhere.pt"], "error: weights 'nowhere.pt': no such file"),
        (["--size", "small", "--weights", "demo"], "error: weights for size 'small': the demo weights are nano only"),
        (["--plans-only"], "error: --plans-only needs detection.engine tensorrt, got openvino"),
    ],
)
def test_the_command_refuses_with_one_line(arguments, reason, tmp_path):
    answer = command(*arguments, "--repository", str(tmp_path))
    assert answer.returncode == 1
    assert answer.stderr.startswith(reason)
    assert "Traceback" not in answer.stderr


def test_plans_only_writes_nothing_into_the_repository_and_fails_where_no_plan_can_be_built(tmp_path):
    config = tmp_path / "serve.yaml"
    text = (PROJECT_ROOT / "configs" / "serve.gpu.yaml").read_text()
    config.write_text(
        text.replace("model_repository: model_repository/gpu", f"model_repository: {tmp_path / 'models'}")
    )
    answer = command("--plans-only", "--config", str(config))
    assert answer.returncode == 1
    assert "no TensorRT plans built: " in answer.stdout
    assert answer.stderr.splitlines()[-1] == "error: --plans-only: no plans were built"
    assert not (tmp_path / "models").exists()

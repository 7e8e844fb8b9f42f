"""From weights to a repository that Triton can load, and nothing built twice."""

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
from serve_app.settings import PROJECT_ROOT, DetectionSettings, ModelSource
from serve_app.tools.export.layout import repository_layout
from serve_app.tools.export.repository import build_repository
from serve_app.types import Thresholds


def settings(folder, weights, **changes):
    source = {"weights": str(weights)} | {key: changes.pop(key) for key in ("precision", "nms") if key in changes}
    return DetectionSettings(model_repository=folder, models={"nano": source}, **changes)


@pytest.fixture(scope="module")
def built(tmp_path_factory, demo_weights):
    folder = tmp_path_factory.mktemp("repository")
    lines = []
    assert build_repository(settings(folder, demo_weights), lines.append) > 0
    return folder, lines


def test_every_model_of_the_design_is_there_with_its_files(built):
    folder, _ = built
    names = {path.name for path in folder.iterdir() if path.is_dir()}
    assert names == {
        "yolo",
        "yolo_preprocess",
        "yolo_nano",
        "yolo_nano_end2end",
        "yolo_nano_engine_streaming",
        "yolo_nano_engine_balanced",
        "yolo_nano_engine_batch",
        "yolo_nano_gpu_e2e_streaming",
        "yolo_nano_gpu_e2e",
        "yolo_nano_gpu_e2e_batch",
    }
    for name in names:
        config = text_format.Parse((folder / name / "config.pbtxt").read_text(), ModelConfig())
        assert config.name == name
        assert (folder / name / "1").is_dir()
        if config.backend == "python":
            assert (folder / name / "1" / "model.py").is_file()
    assert (folder / "yolo_nano" / "labels.txt").read_text().split()[0] == YOLO_NAMES()[0]


def YOLO_NAMES():  # noqa: N802 - reads like the constant it is, but loads only when it is needed
    return list(YOLO(PROJECT_ROOT / "model_repository/weights/demo-yolo11n.pt").names.values())


def test_each_step_is_told(built):
    _, lines = built
    assert lines[0].startswith("[1/6] yolo: raw head, OpenVINO f32, from demo-yolo11n.pt")
    assert lines[-1].startswith("built 6 models in ")


def test_a_second_build_does_nothing(built, demo_weights):
    folder, _ = built
    lines = []
    assert build_repository(settings(folder, demo_weights), lines.append) == 0
    assert lines == []


def test_another_precision_is_another_build_and_a_build_cut_off_is_done_again(built, demo_weights, tmp_path):
    folder, _ = built
    lines = []
    (folder / "yolo_nano" / "1" / "model.bin").unlink()
    assert build_repository(settings(folder, demo_weights), lines.append) == 1
    assert lines[0].startswith("[1/1] yolo_nano:")
    lines.clear()
    assert build_repository(settings(folder, demo_weights, precision="bf16"), lines.append) == 6
    assert json.loads((folder / "yolo_nano" / "1" / "model.json").read_text())["precision"] == "bf16"
    build_repository(settings(folder, demo_weights), lines.append)


def test_an_edited_config_is_kept(built, demo_weights):
    folder, _ = built
    path = folder / "yolo_nano" / "config.pbtxt"
    edited = path.read_text().replace("count: 1", "count: 2")
    path.write_text(edited)
    build_repository(settings(folder, demo_weights), lambda line: None, force=True)
    assert path.read_text() == edited


def test_the_committed_configs_are_what_the_export_writes():
    committed = PROJECT_ROOT / "model_repository" / "cpu"
    for model in repository_layout(["nano"], 640):
        assert (committed / model.name / "config.pbtxt").read_text() == model.config
        if model.model_py:
            assert (committed / model.name / "1" / "model.py").read_text() == model.model_py


def test_a_config_names_only_inputs_and_outputs_that_its_engine_has(built):
    folder, _ = built
    for model in repository_layout(["nano"], 640):
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
    folder = tmp_path / "repository"
    folder.mkdir()
    build_repository(settings(folder, weights, nms=nms), lambda line: None)
    bus = cv2.resize(cv2.imread(str(ASSETS / "bus.jpg")), (640, 640))
    square, box = letterbox(cv2.cvtColor(bus, cv2.COLOR_BGR2RGB), 640)
    raw_engine = ov.Core().compile_model(
        folder / "yolo_nano" / "1" / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    head = raw_engine({"images": as_unit_planes(square)})["output0"][0]
    assert (head.shape[-1] == 6) == (not nms)
    scores = np.sort(head[:, 4] if head.shape[-1] == 6 else head[4:].max(axis=0))[-200:]
    widest = int(np.diff(scores[:150]).argmax())  # a threshold that rounding moves no score across
    thresholds = Thresholds(float(scores[widest : widest + 2].mean()), 0.5)
    (result,) = YOLO(weights).predict(
        bus, rect=False, conf=thresholds.confidence, iou=0.5, nms=None if nms else False, verbose=False
    )
    boxes = result.boxes
    expected = list(zip(boxes.xyxyn.numpy(), boxes.conf.tolist(), boxes.cls.tolist(), strict=True))
    for answer in (suppress(head, thresholds), end_to_end(folder, square, thresholds)):
        detections = to_detections(*answer, box, result.names)
        found = [((one.x1, one.y1, one.x2, one.y2), one.confidence, one.class_id) for one in detections]
        difference = compare(expected, found)
        assert difference.expected > 10
        # what nothing taught anything is rarely sure: where scores nearly tie, rounding decides which box stays
        assert difference.unmatched <= (0.1 * difference.expected if architecture == "yolo26n" else 0)
        assert difference.worst_iou > 0.99
        assert difference.worst_score < 0.01


def test_a_head_without_nms_is_refused_where_the_weights_have_none(tmp_path, demo_weights):
    with pytest.raises(ConfigurationError, match=r"nms: false, but demo-yolo11n\.pt has no head"):
        build_repository(settings(tmp_path, demo_weights, nms=False), lambda line: None)


def test_a_config_for_another_picture_size_is_refused_instead_of_failing_later(built, demo_weights):
    folder, _ = built
    with pytest.raises(ConfigurationError, match=r"is for pictures of 640 pixels, detection\.image_size is 320"):
        build_repository(settings(folder, demo_weights, image_size=320), lambda line: None)


def test_a_card_that_is_cut_off_is_built_again(built, demo_weights):
    folder, _ = built
    card = folder / "yolo_nano" / "1" / "model.json"
    card.write_text(card.read_text()[:20])
    assert build_repository(settings(folder, demo_weights), lambda line: None) == 1
    assert json.loads(card.read_text())["name"] == "yolo_nano"


def test_weights_that_can_not_be_read_are_one_clear_error(tmp_path):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"not a checkpoint")
    folder = tmp_path / "repository"
    folder.mkdir()
    with pytest.raises(ConfigurationError, match=r"weights .*broken.pt can't be read"):
        build_repository(settings(folder, broken), lambda line: None)


def test_two_builds_of_one_repository_at_once_are_refused(tmp_path, demo_weights):
    import fcntl

    with (tmp_path / ".build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigurationError, match="another build is running"):
            build_repository(settings(tmp_path, demo_weights), lambda line: None)


def command(*arguments, cwd=PROJECT_ROOT):
    return subprocess.run(
        [sys.executable, PROJECT_ROOT / "scripts" / "build_models", *arguments],
        cwd=cwd, capture_output=True, text=True, env=os.environ | {"YOLO_OFFLINE": "true"},
    )  # fmt: skip


def test_the_command_helps():
    answer = command("--help")
    assert answer.returncode == 0
    assert "weights → graphs → engines" in answer.stdout
    assert "--precision" in answer.stdout


def test_the_command_builds_nothing_for_a_configuration_without_pictures(tmp_path):
    answer = command("--config", "configs/serve.llama2.yaml", "--repository", str(tmp_path))
    assert answer.returncode == 0
    assert "serves no pictures: no models to build" in answer.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--config", "nowhere.yaml"], "error: nowhere.yaml: No such file or directory"),
        (["--size", "small", "--weights", "nowhere.pt"], "error: weights 'nowhere.pt': no such file"),
        (["--size", "small", "--weights", "demo"], "error: weights for size 'small': the demo weights are nano only"),
    ],
)
def test_the_command_refuses_with_one_line(arguments, reason, tmp_path):
    answer = command(*arguments, "--repository", str(tmp_path))
    assert answer.returncode == 1
    assert answer.stderr.startswith(reason)
    assert "Traceback" not in answer.stderr


def test_model_source_defaults_to_what_can_be_had():
    assert ModelSource().weights == "auto"


def test_plans_alone_write_nothing_into_the_repository_and_fail_where_none_can_be_built(tmp_path):
    config = tmp_path / "serve.yaml"
    text = (PROJECT_ROOT / "configs" / "serve.gpu.yaml").read_text()
    config.write_text(
        text.replace("model_repository: model_repository/gpu", f"model_repository: {tmp_path / 'models'}")
    )
    answer = command("--plans-only", "--config", str(config))
    assert answer.returncode == 1
    assert "no plans built here: " in answer.stdout
    assert answer.stderr.splitlines()[-1] == "error: --plans-only: no plan could be built"
    assert not (tmp_path / "models").exists()


def test_plans_alone_are_refused_for_an_engine_that_has_none():
    answer = command("--plans-only", "--config", "configs/serve.yaml")
    assert answer.returncode == 1
    assert answer.stderr == "error: --plans-only: plans are TensorRT's, and detection.engine is openvino\n"

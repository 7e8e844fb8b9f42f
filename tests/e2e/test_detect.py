"""`scripts/detect` on a folder, by every protocol: annotated pictures, times, statistics, JSON and COCO."""

import json
import re
import shutil
import subprocess
import sys

import cv2
import pytest

from serve_app.clients import KserveDetector, RestDetector
from serve_app.errors import NotFoundError, UnavailableError, UnreadableImageError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.detect.cli import main
from tests.e2e.service import SHAPES


@pytest.fixture(scope="module")
def labels(client):
    """As the demo detector knows them, in their order."""
    answer = client.post("/predict/nano", content=SHAPES.read_bytes()).json()
    return {found["class"]: found["class_name"] for found in answer["detections"]}


@pytest.fixture
def folder(tmp_path):
    """Pictures of two formats, one that is broken, and what is no picture."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    shutil.copy(SHAPES, pictures / "a.jpg")
    cv2.imwrite(str(pictures / "b.PNG"), cv2.imread(str(SHAPES))[::2, ::2])
    (pictures / "broken.jpg").write_bytes(SHAPES.read_bytes()[:3000])
    (pictures / "notes.txt").write_text("not sent")
    return pictures


def detect(*arguments):
    command = [sys.executable, PROJECT_ROOT / "scripts" / "detect", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def statistics_in(output):
    return json.loads(re.search(r"^\{$.*?^\}$", output, re.MULTILINE | re.DOTALL)[0])


@pytest.mark.parametrize(
    ("protocol", "model"),
    [("rest", "yolo"), ("kserve-http", "yolo"), ("kserve-grpc", "yolo_nano_gpu_e2e")],
)
def test_a_folder_is_detected_by_every_protocol(service, labels, folder, tmp_path, protocol, model):
    url = {"rest": service.url, "kserve-http": service.host, "kserve-grpc": service.grpc_host}[protocol]
    track = "nano" if model == "yolo" else "nano_gpu_e2e"
    names = tmp_path / "labels.txt"
    names.write_text("\n".join(labels.get(number, str(number)) for number in range(8)))
    files = ("--json", tmp_path / "found.json", "--coco", tmp_path / "coco.json")
    ran = detect(
        folder, "--protocol", protocol, "--url", url, "--track", track, "--model", model, "--labels", names, *files
    )
    assert ran.returncode == 1, "one picture failed"
    assert re.search(r"^a\.jpg: inference time: [\d.]+ ms, 6 detections$", ran.stdout, re.MULTILINE)
    assert re.search(r"^broken\.jpg: ERROR: .+", ran.stdout, re.MULTILINE)
    assert "notes.txt" not in ran.stdout
    (row,) = statistics_in(ran.stdout)["model_stats"]
    assert row["name"] == (model if protocol != "rest" else f"yolo_{track}")
    assert int(row["inference_stats"]["success"]["count"]) >= 3
    assert re.search(r"pictures +3\n +failed or not done +1\n", ran.stdout)
    found = {picture["file"]: picture for picture in json.loads(files[1].read_text())["pictures"]}
    assert set(found) == {"a.jpg", "b.PNG"}
    assert (found["a.jpg"]["width"], found["a.jpg"]["height"]) == (640, 480)
    heart = max(found["a.jpg"]["detections"], key=lambda one: one["confidence"])
    assert heart["class_name"] == "heart"
    assert 0.27 < heart["x1"] < 0.28
    check_coco(json.loads(files[3].read_text()), heart)
    for name in ("a.jpg", "b.PNG.jpg"):
        drawn = cv2.imread(str(folder / "results" / name))
        plain = cv2.imread(str(folder / name.removesuffix(".jpg") if name != "a.jpg" else SHAPES))
        assert drawn.shape == plain.shape
        assert (cv2.absdiff(drawn, plain).max(axis=2) > 60).mean() > 0.002, "boxes were drawn"
    assert not (folder / "results" / "broken.jpg").exists()


def check_coco(document, heart):
    assert [image["file_name"] for image in document["images"]] == ["a.jpg", "b.PNG"]
    known = {category["id"]: category["name"] for category in document["categories"]}
    (best,) = [one for one in document["annotations"] if one["score"] == round(heart["confidence"], 5)]
    assert (best["image_id"], known[best["category_id"]]) == (1, "heart")
    assert best["bbox"][0] == pytest.approx(heart["x1"] * 640, abs=0.01)
    assert best["bbox"][3] == pytest.approx((heart["y2"] - heart["y1"]) * 480, abs=0.02)


def test_many_at_once_are_answered_in_the_folders_order(service, tmp_path):
    for number in range(12):
        shutil.copy(SHAPES, tmp_path / f"{number:02}.jpg")
    ran = detect(tmp_path, "--url", service.url, "--concurrency", 6, "--track", "nano_end2end")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = re.findall(r"^(\d\d)\.jpg: inference time: [\d.]+ ms, 6 detections$", ran.stdout, re.MULTILINE)
    assert lines == [f"{number:02}" for number in range(12)]
    assert ran.stderr == ""


def test_what_can_not_work_is_one_line(service, folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    urls = {"rest": service.url, "kserve-http": service.host, "kserve-grpc": service.grpc_host}
    for picked, protocol, arguments, status, message in (
        ("/nowhere", "rest", (), 2, "error: /nowhere is not a folder"),
        (tmp_path / "empty", "rest", (), 2, f"error: {tmp_path / 'empty'} has no pictures (.jpg, .jpeg, .png, .webp, "),
        (folder, "rest", ("--track", "huge"), 1, "error: no track at /predict/huge; available: "),
        (folder, "kserve-http", ("--model", "huge"), 1, "error: Request for unknown model: 'huge'"),
        (folder, "kserve-grpc", ("--model", "huge"), 1, "error: Request for unknown model: 'huge'"),
        (folder, "kserve-http", ("--model", "slow"), 2, "error: model 'slow' can't detect: it needs one input"),
        (folder, "rest", ("--url", "http://127.0.0.1:9"), 1, "error: http://127.0.0.1:9 doesn't answer: "),
        (folder, "rest", ("--conf", "2"), 2, "error: argument --conf: 2 is not from 0 to 1"),
    ):
        with pytest.raises(SystemExit) as ended:
            main("", [str(picked), "--protocol", protocol, "--url", urls[protocol], *arguments])
        said = capsys.readouterr().err
        assert (ended.value.code, len(said.splitlines())) == (status, 1), said
        assert said.startswith(message), said


def test_programs_get_the_same_answers_and_errors_from_each_class(service):
    picture = SHAPES.read_bytes()
    detectors = [
        RestDetector(service.url),
        KserveDetector(service.host),
        KserveDetector(service.grpc_host, protocol="grpc"),
        KserveDetector(service.host, "yolo_nano_gpu_e2e"),
    ]
    for detector in detectors:
        with detector:
            result = detector.detect(picture)
            assert (result.width, result.height, len(result.detections)) == (640, 480, 6)
            assert {found.class_id for found in result.detections} >= {5, 1}
            with pytest.raises(UnreadableImageError):
                detector.detect(picture[:3000])
    with pytest.raises(NotFoundError, match="huge"):
        RestDetector(service.url, "huge").detect(picture)
    with pytest.raises(UnavailableError, match="doesn't answer"):
        RestDetector("http://127.0.0.1:9").detect(picture)

"""Every track on the real service answers ultralytics' own detections, in the promised shape."""

import concurrent.futures
import io

import cv2
import httpx
import numpy as np
import pytest
from PIL import Image
from ultralytics import ASSETS, YOLO

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.export.demo.scenes import draw_scene

TRACKS = {
    "A": "/pytorch/predict/nano",
    "B": "/predict/nano",
    "C": "/predict/nano_end2end",
    "D1": "/predict/nano_gpu_e2e_streaming",
    "D2": "/predict/nano_gpu_e2e",
    "D3": "/predict/nano_gpu_e2e_batch",
}
SIZES = ((640, 640), (640, 480), (480, 640), (1280, 720), (320, 320))


def as_jpeg(image):
    encoded, data = cv2.imencode(".jpg", image)
    assert encoded
    return data.tobytes()


@pytest.fixture(scope="module")
def pictures():
    """The drawn set in its five sizes, and the photographs that come with ultralytics."""
    scenes = {f"scene {seed}": as_jpeg(draw_scene(seed, size=SIZES[seed % 5]).image) for seed in range(900, 915)}
    return scenes | {name: (ASSETS / name).read_bytes() for name in ("bus.jpg", "zidane.jpg")}


@pytest.fixture(scope="module")
def reference(pictures):
    """What ultralytics' predictor says of them, on the whole square as every engine takes it."""
    model = YOLO(PROJECT_ROOT / "model_repository" / "weights" / "demo-yolo11n.pt")
    answers = {}
    for name, data in pictures.items():
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        for thresholds in ((0.25, 0.7), (0.1, 0.45)):
            conf, iou = thresholds
            (result,) = model.predict(image, rect=False, conf=conf, iou=iou, verbose=False)
            boxes = result.boxes
            rows = zip(boxes.xyxyn.numpy(), boxes.conf.tolist(), boxes.cls.int().tolist(), strict=True)
            answers[name, thresholds] = list(rows)
    return answers


def rows_of(answer):
    return [
        ((one["x1"], one["y1"], one["x2"], one["y2"]), one["confidence"], one["class"]) for one in answer["detections"]
    ]


@pytest.mark.parametrize("track", TRACKS)
def test_a_track_is_as_good_as_ultralytics(track, client, pictures, reference, compare, capsys):
    worst_iou, worst_score, boxes = 1.0, 0.0, 0
    for (name, (conf, iou)), expected in reference.items():
        answer = client.post(TRACKS[track], params={"conf": conf, "iou": iou}, files={"image": pictures[name]})
        assert answer.status_code == 200, answer.text
        difference = compare(expected, rows_of(answer.json()))
        assert difference.unmatched == 0, f"{name} at {conf}: {difference}"
        boxes += difference.expected
        worst_iou = min(worst_iou, difference.worst_iou)
        worst_score = max(worst_score, difference.worst_score)
    with capsys.disabled():
        print(f"\n  track {track:<2}  {len(pictures)} pictures  {boxes} boxes, all found  "
              f"worst IoU {worst_iou:.5f}  worst score difference {worst_score:.1e}")  # fmt: skip
    assert boxes > 150
    assert worst_iou >= 0.99
    assert worst_score <= 0.01


@pytest.mark.parametrize("track", TRACKS)
def test_an_answer_has_the_promised_shape(track, client, pictures):
    answer = client.post(TRACKS[track], files={"file": pictures["bus.jpg"]}).json()
    assert set(answer) == {"status", "track", "model", "image", "num_detections", "detections", "timing_ms"}
    assert answer["status"] == "success"
    assert answer["track"] == track
    assert set(answer["model"]) == {"name", "backend", "device"}
    assert answer["model"]["backend"] == ("pytorch" if track == "A" else "openvino")
    assert answer["image"] == {"width": 810, "height": 1080}
    assert answer["num_detections"] == len(answer["detections"]) > 0
    assert set(answer["detections"][0]) == {"x1", "y1", "x2", "y2", "confidence", "class", "class_name"}
    times = answer["timing_ms"]
    assert list(times) == ["decode", "preprocess", "queue", "infer", "postprocess", "total"]
    assert times["infer"] > 0
    assert sum(times.values()) - times["total"] < times["total"] + 1


@pytest.mark.parametrize("track", TRACKS)
def test_max_det_and_classes_narrow_the_answer(track, client, pictures):
    everything = client.post(TRACKS[track], content=pictures["scene 900"], params={"conf": 0.05}).json()
    label = everything["detections"][-1]["class"]
    few = client.post(TRACKS[track], content=pictures["scene 900"], params={"conf": 0.05, "max_det": 2}).json()
    assert few["detections"] == everything["detections"][:2]
    one = client.post(TRACKS[track], content=pictures["scene 900"], params={"conf": 0.05, "classes": label}).json()
    assert one["detections"] == [row for row in everything["detections"] if row["class"] == label]


@pytest.mark.parametrize("track", TRACKS)
def test_many_pictures_are_answered_each_and_a_bad_one_fails_alone(track, client, pictures, compare):
    names = ["scene 901", "scene 902", "scene 903"]
    files = [("images", pictures[name]) for name in names]
    files.insert(1, ("images", b"no picture at all"))
    files.append(("images", pictures["bus.jpg"][:20_000]))
    answer = client.post(TRACKS[track], files=files)
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result.get("code", 200) for result in results] == [200, 415, 200, 200, 422]
    for name, result in zip(names, (results[0], results[2], results[3]), strict=True):
        alone = client.post(TRACKS[track], content=pictures[name]).json()
        difference = compare(rows_of(alone), rows_of(result))
        assert difference.unmatched == 0
        assert difference.worst_iou > 0.999
    assert "not a picture in a supported format" in results[1]["error"]


def test_concurrent_requests_are_batched(service, client, pictures):
    before = batches(client)
    with (
        httpx.Client(base_url=service.url, timeout=60, limits=httpx.Limits(max_connections=32)) as many,
        concurrent.futures.ThreadPoolExecutor(32) as pool,
    ):
        answers = list(pool.map(lambda _: many.post("/predict/nano", content=pictures["bus.jpg"]), range(48)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["num_detections"] for answer in answers}) == 1
    grown = {size: count - before.get(size, 0) for size, count in batches(client).items()}
    assert sum(size * count for size, count in grown.items()) == 48
    assert max(size for size, count in grown.items() if count) > 1


@pytest.mark.parametrize("track", [track for track in TRACKS if track != "A"])
def test_requests_of_one_batch_keep_their_own_thresholds(track, service, client, pictures):
    confidences = [0.05, 0.25, 0.5, 0.9]
    names = ["scene 900", "scene 906", "bus.jpg"]
    asked = [(name, conf) for name in names for conf in confidences]
    alone = {one: found_by(client, track, pictures, *one) for one in asked}
    assert len({count for (name, _), count in alone.items() if name == "scene 900"}) > 1, "thresholds matter"
    with (
        httpx.Client(base_url=service.url, timeout=60, limits=httpx.Limits(max_connections=16)) as many,
        concurrent.futures.ThreadPoolExecutor(16) as pool,
    ):
        together = list(pool.map(lambda one: found_by(many, track, pictures, *one), asked * 2))
    assert together == [alone[one] for one in asked * 2]


def found_by(client, track, pictures, name, conf):
    answer = client.post(TRACKS[track], content=pictures[name], params={"conf": conf})
    assert answer.status_code == 200
    # not their exact scores: those of a batch differ in the last digits
    return sum(abs(found["confidence"] - conf) > 1e-3 for found in answer.json()["detections"])


def batches(client):
    (statistics,) = client.get("/v2/models/yolo_nano/stats").json()["model_stats"]
    return {entry["batch_size"]: entry["compute_infer"]["count"] for entry in statistics["batch_stats"]}


def test_the_tracks_are_listed_with_their_models(client):
    rows = client.get("/tracks").json()["tracks"]
    assert {row["track"]: row["path"] for row in rows} == TRACKS
    assert all(row["ready"] for row in rows)
    assert {row["model"]["name"] for row in rows if row["track"] == "D3"} == {"yolo_nano_gpu_e2e_batch"}
    backends = {row["track"]: row["model"]["backend"] for row in rows}
    assert backends.pop("A") == "pytorch"
    assert set(backends.values()) == {"openvino"}


def test_health_names_every_deployment(client, languages):
    answer = client.get("/health")
    assert answer.status_code == 200
    ready = {"vision", "baseline", "laboratory", "playground", "demo-llm", "second-llm"}
    assert answer.json()["deployments"].items() >= dict.fromkeys(ready, True).items()
    assert answer.json() == {"live": True, "ready": True, "deployments": answer.json()["deployments"]}


def picture_of_81_million_pixels():
    buffer = io.BytesIO()
    Image.new("1", (9000, 9000)).save(buffer, "PNG")
    return buffer.getvalue()


GIF = {"content": b"GIF89a"}
HUGE = {"content": picture_of_81_million_pixels()}
TEXT = {"data": {"image": "x"}, "files": {"b": b""}}
X = {"content": b"x"}
REFUSED = [
    ("/predict/huge", X, 404, "available: /pytorch/predict/nano, /predict/nano, "),
    (
        "/predict/nano",
        {"content": b""},
        400,
        "the body is empty: send a picture's bytes, or a form with one of the fields image",
    ),
    ("/predict/nano", GIF, 415, "not a picture in a supported format (JPEG, PNG, WEBP, BMP)"),
    ("/predict/nano_gpu_e2e", GIF, 415, "not a picture in a supported format"),
    ("/pytorch/predict/nano", GIF, 415, "not a picture in a supported format"),
    ("/predict/nano?annotate=true", GIF, 415, "not a picture in a supported format"),
    ("/predict/nano", HUGE, 422, "9000x9000 = 81000000 pixels, over the limit of 64000000"),
    ("/predict/nano_gpu_e2e", HUGE, 422, "over the limit of 64000000"),
    (
        "/predict/nano",
        {"files": {"photo": b"x"}},
        400,
        "the form has none of the fields image, file, images; it has: photo",
    ),
    ("/predict/nano", TEXT, 400, "form field 'image' must be a file, got text"),
    ("/predict/nano?conf=2", X, 400, "conf must be between 0.0 and 1.0, got 2"),
    ("/predict/nano?conf=nan", X, 400, "conf must be between 0.0 and 1.0, got nan"),
    ("/predict/nano?iou=a", X, 400, "iou must be a number, got 'a'"),
    ("/predict/nano?max_det=1.5", X, 400, "max_det must be an integer, got '1.5'"),
    ("/predict/nano?max_det=301", X, 400, "max_det must be between 1 and 300, got 301"),
    ("/predict/nano?classes=a", X, 400, "classes must be a list of class numbers such as 0,2, got 'a'"),
    ("/predict/nano?classes=99", X, 400, "classes must be from 0 to "),
    ("/pytorch/predict/nano?classes=99", X, 400, "classes must be from 0 to "),
    ("/predict/nano?cnof=0.4", X, 400, "unknown query parameter 'cnof'; did you mean 'conf'?"),
    ("/predict/nano", {"content": bytes((64 << 20) + 1)}, 413, "larger than the limit of 67108864 bytes"),
]


def test_requests_that_are_wrong_are_refused_with_the_reason(client):
    for path, request, status, message in REFUSED:
        answer = client.post(path, **request)
        assert answer.status_code == status, f"{path}: {answer.text}"
        assert message in answer.json()["error"], path
        assert "Traceback" not in answer.text
        assert "serve_app." not in answer.text

"""Clients as people write them: a detector over tritonclient, drawn pictures, warm-up, and the documentation."""

import io
import time

import cv2
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from PIL import Image
from ultralytics import YOLO

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.export.demo.scenes import draw_scene
from tests.e2e.description import check_description


@pytest.fixture(scope="module")
def picture():
    encoded, data = cv2.imencode(".png", draw_scene(905, size=(640, 480)).image)
    assert encoded
    return data.tobytes()


def as_planes(picture):
    """What document 000's clients send: the picture on its grey square, as FP32 planes."""
    image = cv2.cvtColor(cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    square = np.full((640, 640, 3), 114, np.uint8)
    square[80:560] = image
    return np.ascontiguousarray(square.transpose(2, 0, 1)[None], np.float32) / 255


def boxes_of(output, confidence):
    rows = output[0].T
    best = rows[:, 4:].max(axis=1)
    kept = rows[best > confidence]
    chosen = cv2.dnn.NMSBoxes(
        [(x - w / 2, y - h / 2, w, h) for x, y, w, h in kept[:, :4].tolist()],
        kept[:, 4:].max(axis=1).tolist(), confidence, 0.7,
    )  # fmt: skip
    return sorted((int(kept[i, 4:].argmax()), round(float(kept[i, 4:].max()), 3)) for i in chosen)


@pytest.mark.parametrize("module", [httpclient, grpcclient], ids=["http", "grpc"])
def test_a_detector_written_for_triton_works_unchanged(module, service, picture):
    url = service.host if module is httpclient else service.grpc_host
    options = {} if module is httpclient else {"as_json": True}
    with module.InferenceServerClient(url) as client:
        assert client.is_model_ready("yolo")
        before = successes(client, options)
        images = module.InferInput("images", [1, 3, 640, 640], "FP32")
        images.set_data_from_numpy(as_planes(picture))
        answer = client.infer("yolo", [images], outputs=[module.InferRequestedOutput("output0")])
        output = answer.as_numpy("output0")
        deadline = time.monotonic() + 10
        while successes(client, options) == before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert successes(client, options) == before + 1
    model = YOLO(PROJECT_ROOT / "model_repository" / "weights" / "demo-yolo11n.pt")
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    (expected,) = model.predict(image, rect=False, conf=0.5, verbose=False)
    wanted = sorted(
        (int(c), round(s, 3)) for c, s in zip(expected.boxes.cls, expected.boxes.conf.tolist(), strict=True)
    )
    found = boxes_of(output, 0.5)
    assert len(found) == len(wanted) > 1
    assert [label for label, _ in found] == [label for label, _ in wanted]
    assert np.allclose([score for _, score in found], [score for _, score in wanted], atol=0.002)


def successes(client, options):
    (row,) = client.get_inference_statistics("yolo", **options)["model_stats"]
    return int(row["inference_stats"]["success"].get("count", 0))


@pytest.mark.parametrize("path", ["/predict/nano", "/predict/nano_gpu_e2e", "/pytorch/predict/nano"])
def test_an_annotated_answer_is_the_picture_with_its_boxes(client, picture, path):
    plain = client.post(path, content=picture, params={"conf": 0.5}).json()
    answer = client.post(path, content=picture, params={"conf": 0.5, "annotate": "true"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/jpeg"
    drawn = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"), np.int32)
    before = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), np.int32)
    assert drawn.shape == before.shape
    changed = np.abs(drawn - before).max(axis=2) > 60
    for box in plain["detections"]:
        left = min(int(box["x1"] * 640), 639)
        top, bottom = int(box["y1"] * 480), max(int(box["y2"] * 480), 1)
        assert changed[top:bottom, max(left - 3, 0) : left + 4].any()
    assert plain["num_detections"] > 1
    assert changed.mean() < 0.3


def test_many_pictures_are_not_drawn(client, picture):
    answer = client.post("/predict/nano?annotate=true", files=[("images", picture), ("images", picture)])
    assert answer.status_code == 400
    assert "annotate=true takes one picture" in answer.json()["error"]


def test_warmup_runs_on_every_replica_and_tells_how_far_it_is(client):
    started = client.post("/warmup")
    assert started.status_code == 202
    assert set(started.json()["deployments"]) >= {"vision", "baseline", "laboratory"}
    deadline = time.monotonic() + 60
    while (status := client.get("/warmup_status").json())["state"] != "ready":
        assert status["state"] in ("pending", "warming")
        assert time.monotonic() < deadline, status
        time.sleep(0.1)
    models = status["deployments"]["vision"]
    assert models["yolo_nano_gpu_e2e"]["state"] == "ready"
    assert models["yolo_nano_gpu_e2e"]["seconds"] > 0
    assert (models["yolo_nano"]["replicas_ready"], models["yolo_nano"]["replicas"]) == (1, 1)
    assert set(status["deployments"]["baseline"]) == {"yolo_nano"}


def test_a_request_that_is_late_already_is_not_begun(client, picture):
    answer = client.post("/predict/nano", content=picture, headers={"X-Request-Timeout-S": "0.000001"})
    assert answer.status_code == 504
    answer = client.post("/predict/nano", content=picture, headers={"X-Request-Timeout-S": "soon"})
    assert answer.status_code == 400
    assert "x-request-timeout-s must be a number of seconds greater than 0, got 'soon'" in answer.json()["error"]


def test_the_documentation_is_complete_without_a_network(client):
    page = client.get("/docs")
    assert page.status_code == 200
    for asset in ("swagger-ui.css", "swagger-ui-bundle.js"):
        assert f"docs/assets/{asset}" in page.text
        assert client.get(f"/docs/assets/{asset}").status_code == 200
    assert "//" not in page.text.replace("</", "")
    described = client.get("/openapi.json").json()
    assert described["paths"]["/predict/{target}"]["parameters"][0]["schema"]["enum"] == [
        "nano", "nano_end2end", "nano_gpu_e2e_streaming", "nano_gpu_e2e", "nano_gpu_e2e_batch",
    ]  # fmt: skip


@pytest.mark.timeout(400)
def test_what_the_document_describes_is_what_the_service_does(service, tmp_path):
    """With examples and edge cases; `make slow` adds random ones. llm/test_openai.py has those of language models."""
    check_description(service, tmp_path, "examples,coverage")

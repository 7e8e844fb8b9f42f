"""The predict endpoints, over a fake deployment that answers what a test scripts."""

import io
from http import HTTPStatus

import httpx
import pytest
from PIL import Image
from starlette.applications import Starlette

from serve_app.detection.tracks import tracks_of
from serve_app.errors import UnavailableError
from serve_app.router.catalog import Catalog
from serve_app.router.deployments import Deployments
from serve_app.router.errors import HANDLERS
from serve_app.router.plane import DataPlane, ServedTrack
from serve_app.router.rest.detection import DetectionRest
from serve_app.settings import Settings
from serve_app.types import Detection, PictureResult, StageTimes, Thresholds, TrackAnswer

NANO = next(track for track in tracks_of(Settings().detection.models, ["nano"]) if track.path == "/predict/nano")
CAT = Detection(0.1, 0.2, 0.3, 0.4, 0.9, 0, "cat")
FOUND = PictureResult(64, 48, (CAT,), StageTimes(decode=1.23456, infer=5))
REFUSED = PictureResult(error="not an image", error_status=415)
CAT_DOCUMENT = {"x1": 0.1, "y1": 0.2, "x2": 0.3, "y2": 0.4, "confidence": 0.9, "class": 0, "class_name": "cat"}


@pytest.fixture
def serve(deploy):
    """A client, and the handle whose replica answers with the given results or raises the given error."""

    def over(*results):
        if isinstance(results[0], Exception):
            outcome = results[0]
        else:
            outcome = TrackAnswer("yolo11n", "openvino", "cpu", tuple(results))
        upstream, handle = deploy("vision", script=[outcome])
        plane = DataPlane(Catalog([], {}), Deployments([upstream]), {NANO.path: ServedTrack(NANO, upstream)})
        app = Starlette(routes=DetectionRest(plane, Settings()).routes(), exception_handlers=HANDLERS)
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://router"), handle

    return over


def picture():
    written = io.BytesIO()
    Image.new("RGB", (64, 48)).save(written, "PNG")
    return written.getvalue()


async def test_a_picture_is_answered_with_its_size_detections_and_times(serve):
    client, handle = serve(FOUND)
    answer = await client.post("/predict/nano?conf=0.5&classes=2", content=b"picture")
    document = answer.json()
    assert answer.status_code == HTTPStatus.OK
    assert document.pop("timing_ms").items() >= {"decode": 1.235, "infer": 5, "queue": 0}.items()
    assert document == {
        "status": "success",
        "track": NANO.design.name,
        "model": {"name": "yolo11n", "backend": "openvino", "device": "cpu"},
        "image": {"width": 64, "height": 48},
        "num_detections": 1,
        "detections": [CAT_DOCUMENT],
    }
    ((method, (target, pictures, thresholds, _), _),) = handle.calls
    assert (method, target, pictures) == ("detect", NANO.target, [b"picture"])
    assert thresholds == Thresholds(confidence=0.5, classes=(2,))


async def test_several_pictures_are_answered_one_by_one(serve):
    client, handle = serve(FOUND, REFUSED)
    answer = await client.post("/predict/nano", files=[("images", b"first"), ("images", b"second")])
    found, refused = answer.json()["results"]
    assert answer.status_code == HTTPStatus.OK
    assert (found["status"], found["detections"]) == ("success", [CAT_DOCUMENT])
    assert refused == {"status": "error", "error": "not an image", "code": 415}
    assert handle.calls[0][1][1] == [b"first", b"second"]


async def test_a_picture_that_is_refused_gives_its_error_and_status(serve):
    client, _ = serve(REFUSED)
    answer = await client.post("/predict/nano?annotate=true", files={"image": b"text"})
    assert (answer.status_code, answer.json()) == (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"error": "not an image"})


async def test_an_annotated_picture_is_a_jpeg_of_the_same_size(serve):
    client, _ = serve(FOUND)
    answer = await client.post("/predict/nano?annotate=true", content=picture())
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (64, 48)


async def test_a_wrong_request_asks_no_deployment(serve):
    client, handle = serve(FOUND)
    for path, sent, status, message in (
        ("/predict/huge", {"content": b"x"}, 404, "no track at /predict/huge; available: /predict/nano"),
        ("/pytorch/predict/nano", {"content": b"x"}, 404, "no track at /pytorch/predict/nano"),
        ("/predict/nano", {"content": b""}, 400, "the body is empty: send a picture's bytes"),
        ("/predict/nano", {"files": {"picture": b"x"}}, 400, "the form has none of the fields image, file, images"),
        ("/predict/nano", {"files": {"other": b"x"}, "data": {"image": "x"}}, 400, "must be a file, got text"),
        ("/predict/nano?annotate=maybe", {"content": b"x"}, 400, "annotate must be true or false, got 'maybe'"),
        ("/predict/nano?annotate=1", {"files": {"images": b"x"}}, 400, "annotate=true takes one picture"),
        ("/predict/nano?conf=2", {"content": b"x"}, 400, "conf must be between 0.0 and 1.0, got 2"),
    ):
        answer = await client.post(path, **sent)
        assert (answer.status_code, message in answer.text) == (status, True), (path, answer.text)
    assert handle.calls == []


async def test_a_deployment_that_is_not_available_is_reported_as_such(serve):
    client, _ = serve(UnavailableError("vision has no running replica"))
    answer = await client.post("/predict/nano", content=b"picture")
    assert (answer.status_code, answer.json()) == (503, {"error": "vision has no running replica"})
    assert answer.headers["retry-after"]

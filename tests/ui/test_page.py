"""What the page makes of the service's answers, good and bad; the service is faked, Gradio is real."""

import json
import re

import cv2
import numpy as np
import openai
import pytest
from gradio.components.chatbot import ChatbotDataMessages
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.testclient import TestClient

from serve_app.types import Detection, PictureResult, StageTimes
from serve_app.ui import detection
from serve_app.ui.chat import ChatTab, Speed, plain, take
from serve_app.ui.detection import SAMPLES, Seen, preferred, tell
from serve_app.ui.guard import Guard
from serve_app.ui.page import build_blocks
from serve_app.ui.service import Service
from serve_app.ui.status import StatusTab, replicas_of

TIMES = {"decode": 1.0, "preprocess": 2.0, "queue": 3.0, "infer": 40.0, "postprocess": 0.5, "total": 47.0}
HEART = {"x1": 0.25, "y1": 0.25, "x2": 0.75, "y2": 0.75, "confidence": 0.97, "class": 5, "class_name": "<heart>"}
TRACKS = [
    {"track": name, "path": path, "size": "nano", "summary": f"is {name}", "ready": ready,
     "model": {"name": "yolo", "backend": "openvino"}}
    for name, path, ready in (("A", "/pytorch/predict/nano", False), ("B", "/predict/nano", True),
                              ("D1", "/predict/nano_gpu_e2e_streaming", True))
]  # fmt: skip
BUSY = (503, {"error": "the queue of <vision> is full; try again"})


def found(*detections):
    size = {"width": 640, "height": 480}
    return {"model": {"name": "yolo"}, "image": size, "detections": list(detections), "timing_ms": TIMES}


def events(*chunks):
    """As a language model streams them."""
    lines = [
        json.dumps({"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"} | chunk)
        for chunk in chunks
    ]
    return 200, "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode(), "text/event-stream"


def piece(text, finish=None):
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


def part(fake, kind):
    """One of the page's tabs, in the page."""
    blocks = build_blocks(Service(fake.url))
    owners = {one.fn.__self__ for one in blocks.fns.values() if hasattr(one.fn, "__self__")}
    return next(owner for owner in owners if isinstance(owner, kind))


@pytest.fixture
def pictures(fake):
    return part(fake, detection.DetectionTab)


@pytest.fixture
def chat(fake):
    return part(fake, ChatTab)


@pytest.fixture
def status(fake):
    return part(fake, StatusTab)


def detect(pictures, *tracks, picture=str(SAMPLES[0])):
    """The last of what the page is told: picture, words, picture, words."""
    return list(pictures.detect(picture, 0.4, 0.5, 20, *tracks))[-1]


def test_an_open_page_holds_no_connection(fake):
    """One would keep a router that stops from stopping, for as long as somebody's page is open."""
    assert build_blocks(Service(fake.url)).get_config_file()["connect_heartbeat"] is False


def test_samples_are_there():
    assert len(SAMPLES) >= 3
    assert all(cv2.imread(str(path)) is not None for path in SAMPLES)


def test_a_picture_goes_to_both_tracks_as_it_is_and_comes_back_drawn(fake, pictures):
    fake.answers[("POST", "/predict/nano")] = (200, found(HEART))
    fake.answers[("POST", "/pytorch/predict/nano")] = (200, found())
    first, told_first, second, told_second = detect(pictures, "/predict/nano", "/pytorch/predict/nano")
    assert [(path, query) for _, path, query, _ in fake.asked] == [
        ("/predict/nano", "conf=0.4&iou=0.5&max_det=20"),
        ("/pytorch/predict/nano", "conf=0.4&iou=0.5&max_det=20"),
    ]
    assert all(body == SAMPLES[0].read_bytes() for *_, body in fake.asked)
    change = np.abs(cv2.imread(first).astype(int) - cv2.imread(second)).max(axis=2)
    assert (change[120:360, 160] > 40).mean() > 0.8  # the left edge of the heart's box
    assert (change[400:, :] < 40).all()
    assert "&lt;heart&gt; × 1" in told_first
    assert "<heart>" not in told_first
    assert "infer <b>40.0</b> ms" in told_first
    assert "Nothing was found" in told_second


def test_one_track_alone_leaves_the_other_side_empty(fake, pictures):
    fake.answers[("POST", "/predict/nano")] = (200, found(HEART))
    drawn, _, nothing, _ = detect(pictures, "/predict/nano", "")
    assert drawn
    assert nothing is None
    assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("answer", "headline", "reason"),
    [
        (BUSY, "The service is busy or not ready: try again in a moment", "&lt;vision&gt; is full"),
        ((415, {"error": "these bytes are in no format"}), "This is no picture", "in no format"),
        ((422, {"error": "it has 90 megapixels"}), "This picture can't be read", "90 megapixels"),
        ((413, {"error": "over the limit"}), "This is too large", "over the limit"),
        ((404, {"error": "no track there"}), "This is not served", "no track there"),
        ((504, {"error": "too late"}), "This took too long", "too late"),
        ((500, {"error": "the log says why"}), "The request failed", "the log says why"),
        ((502, b"<html>gateway</html>", "text/html"), "The request failed", "no answer of this service"),
    ],
)
def test_a_failure_of_one_side_is_told_there_and_leaves_the_other(fake, pictures, answer, headline, reason):
    fake.answers[("POST", "/predict/nano")] = answer
    fake.answers[("POST", "/predict/other")] = (200, found(HEART))
    nothing, told, drawn, _ = detect(pictures, "/predict/nano", "/predict/other")
    assert nothing is None
    assert f"<b>{headline}</b>" in told
    assert reason in told
    assert drawn


def test_a_service_that_is_gone_and_a_picture_that_is_missing_are_told(pictures, fake):
    assert "Drop a picture" in detect(pictures, "/predict/nano", "", picture=None)[1]
    pictures._service.url = "http://127.0.0.1:1"
    told = detect(pictures, "/predict/nano", "")[1]
    assert "busy or not ready" in told
    assert "doesn&#x27;t answer" in told
    assert fake.asked == []


def test_the_bar_of_the_faster_track_is_shorter_and_its_parts_are_the_whole_way():
    times = StageTimes(decode=1, preprocess=2, queue=3, infer=30, postprocess=4)
    heart = Detection(0, 0, 1, 1, 0.9, 5, "heart")
    told = tell(Seen(PictureResult(640, 480, (heart,), times), 50.0), 200.0)
    assert "width: 25.0%" in told
    parts = [float(ms) for ms in re.findall(r"flex-grow: ([\d.]+)", told)]
    assert sum(parts) == pytest.approx(50)
    assert parts[-1] == pytest.approx(10)


async def test_the_tracks_to_choose_from_are_those_that_are_served(fake, pictures):
    fake.answers[("GET", "/tracks")] = (200, {"tracks": TRACKS})
    first, second = await pictures.update()
    assert [value for _, value in first.choices] == [track["path"] for track in TRACKS]
    assert (first.value, second.value) == ("/predict/nano", "/predict/nano_gpu_e2e_streaming")
    assert second.choices[-1][1] == ""
    fake.answers[("GET", "/tracks")] = (200, {"tracks": []})
    assert (await pictures.update())[0].info == "This service has no detection tracks"
    fake.answers[("GET", "/tracks")] = BUSY
    assert "doesn't answer" in (await pictures.update())[0].info


def test_a_page_begins_with_what_there_is():
    assert preferred(TRACKS[:1]) == ("/pytorch/predict/nano", "")
    assert preferred(TRACKS[:2]) == ("/predict/nano", "/pytorch/predict/nano")
    assert preferred(TRACKS) == ("/predict/nano", "/predict/nano_gpu_e2e_streaming")


async def ask(chat, *questions, model="m"):
    talk = []
    for question in questions:
        _, talk = take(question, talk)
    return [step async for step in chat.answer(talk, model, 0.0, 64)]


async def test_an_answer_grows_and_its_speed_is_told(fake, chat):
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}}
    fake.answers[("POST", "/v1/chat/completions")] = events(piece("Triton "), piece("<b>serves</b>", "stop"), usage)
    steps = await ask(chat, "What is it?")
    talk, told = steps[-1]
    assert talk == [
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "Triton <b>serves</b>"},
    ]
    assert "<b>7</b><span>tokens</span>" in told
    assert "tokens/s" in told
    assert "Waiting for the first token" in steps[0][1]
    (asked,) = [json.loads(body) for *_, body in fake.asked]
    assert (asked["model"], asked["max_tokens"], asked["stream"]) == ("m", 64, True)
    assert asked["messages"] == [{"role": "user", "content": "What is it?"}]


async def test_an_answer_that_was_cut_says_so(fake, chat):
    fake.answers[("POST", "/v1/chat/completions")] = events(piece("Tri", "length"))
    assert "cut at the limit" in (await ask(chat, "What?"))[-1][1]


@pytest.mark.parametrize(
    ("answer", "headline", "reason"),
    [
        ((503, {"error": {"message": "'m' was not up within 5 s", "code": 503}}), "busy or not ready", "was not up"),
        ((404, {"error": {"message": "The model `m` does not exist", "code": 404}}), "not served", "does not exist"),
        ((400, {"error": {"message": "too <long>", "code": 400}}), "The request failed", "too &lt;long&gt;"),
    ],
)
async def test_a_model_that_does_not_answer_says_why(fake, chat, answer, headline, reason):
    fake.answers[("POST", "/v1/chat/completions")] = answer
    talk, told = (await ask(chat, "What?"))[-1]
    assert [message["role"] for message in talk] == ["user"]
    assert headline in told
    assert reason in told


async def test_an_answer_that_breaks_keeps_what_was_written(fake, chat):
    status, body, kind = events(piece("Half of"))
    broken = body.replace(b"data: [DONE]\n\n", b'data: {"error": {"message": "the engine died", "code": 500}}\n\n')
    fake.answers[("POST", "/v1/chat/completions")] = (status, broken, kind)
    talk, told = (await ask(chat, "What?"))[-1]
    assert talk[-1]["content"] == "Half of"
    assert "the engine died" in told


async def test_nothing_is_asked_without_a_question_or_a_model(fake, chat):
    assert await ask(chat, "   ") == []
    assert "There is no model" in (await ask(chat, "What?", model=None))[-1][1]
    assert fake.asked == []


async def test_a_service_that_is_gone_is_told_in_a_chat(fake, chat):
    chat._client = openai.AsyncOpenAI(base_url="http://127.0.0.1:1/v1", api_key="none", max_retries=0)
    assert "busy or not ready" in (await ask(chat, "What?"))[-1][1]


def test_speed_counts_from_the_question_and_between_tokens():
    speed = Speed(asked_s=10.0, first_s=10.25, last_s=12.25, tokens=101)
    told = speed.told()
    for value, name in (
        ("50.0", "tokens/s"),
        ("250", "ms to the first token"),
        ("101", "tokens"),
        ("2.25", "s in all"),
    ):
        assert f"<b>{value}</b><span>{name}</span>" in told


def test_a_conversation_goes_back_as_plain_text(chat):
    parts = [{"type": "text", "text": "What "}, {"type": "text", "text": "is it?"}]
    file = {"type": "file", "file": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}}
    component = {"type": "component", "component": "textbox", "value": "x", "constructor_args": {}, "props": {}}
    payload = ChatbotDataMessages(root=[{"role": "user", "content": [*parts, file, component]}])
    assert chat._talk.preprocess(payload) == [{"role": "user", "content": "What is it?"}]


def test_a_question_that_nothing_came_of_is_not_sent_again():
    talk = [{"role": role, "content": text} for role, text in
            (("user", "a"), ("assistant", "b"), ("user", "lost"), ("user", "c"))]  # fmt: skip
    assert [one["content"] for one in plain(talk)] == ["a", "b", "c"]


@pytest.mark.parametrize("track", ["/v2/repository/models/x/unload", "/predict/../v2", "http://elsewhere/predict/nano"])
def test_a_visitor_can_send_to_tracks_only(fake, pictures, track):
    _, told, *_ = detect(pictures, track, "")
    assert "This is not served" in told
    assert fake.asked == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ui/gradio_api/file=http://127.0.0.1/", 404), ("/ui/gradio_api/file= HTTPS://127.0.0.1/", 404),
        ("/ui/gradio_api/proxy=http://127.0.0.1/", 404), ("/ui/gradio_api/heartbeat/x", 404),
        ("/ui/gradio_api/vibe-edit/", 404), ("/ui/gradio_api/file=/tmp/gradio/a/detections.jpg", 200), ("/ui/", 200),
    ],
)  # fmt: skip
def test_other_hosts_and_endless_streams_are_not_there(path, status):
    application = Starlette(routes=[Mount("/", PlainTextResponse("the page"))], middleware=[Middleware(Guard)])
    assert TestClient(application).get(path).status_code == status


async def test_models_to_choose_from_are_those_that_are_served(fake, chat):
    fake.answers[("GET", "/v1/models")] = (200, {"data": [{"id": "one", "root": "one"}, {"id": "two", "root": "one"}]})
    model = await chat.update()
    assert ([value for _, value in model.choices], model.value) == (["one", "two"], "one")
    fake.answers[("GET", "/v1/models")] = (200, {"data": []})
    assert (await chat.update()).info == "This service has no language models"


async def test_the_status_tells_of_everything_and_of_what_cannot_be_had(fake, status):
    fake.answers |= {
        ("GET", "/health"): (503, {"live": True, "ready": False, "deployments": {"vision": False, "talker": True}}),
        ("GET", "/warmup_status"): (200, {"deployments": {"talker": {"talker": {"replicas_ready": 1, "replicas": 2}}}}),
        ("GET", "/tracks"): (200, {"tracks": TRACKS}),
        ("GET", "/v1/models"): (200, {"data": [{"id": name, "root": "talker"} for name in ("talker", "muddled")]}),
        ("POST", "/v2/repository/index"): (200, [
            {"name": "talker", "version": "1", "state": "UNAVAILABLE", "reason": "asleep: <a> request wakes it"},
            {"name": "yolo", "version": "1", "state": "READY"},
        ]),
        ("GET", "/v2/models/stats"): (200, {"model_stats": [{"name": "yolo", "inference_count": 77}]}),
    }  # fmt: skip
    told = await status.show()
    assert re.search(r"vision</td><td>.{,40}not ready</span></td><td>–", told)
    assert re.search(r"talker</td><td>.{,40}ready</span></td><td>1 of 2 warm", told)
    assert re.search(r"yolo</td><td>1</td><td>.{,40}ready</span></td><td>77", told)
    assert told.count("asleep: &lt;a&gt; request wakes it") == 3  # the model twice, and its adapter
    assert told.count("/predict/") == len(TRACKS)
    fake.answers[("POST", "/v2/repository/index")] = BUSY
    told = await status.show()
    assert told.count("busy or not ready") == 2  # of the models, and of the language models
    assert "/predict/nano" in told


def test_replicas_are_as_warm_as_the_coldest_model():
    models = {"a": {"replicas_ready": 2, "replicas": 2}, "b": {"replicas_ready": 1, "replicas": 2}}
    assert replicas_of(models) == "1 of 2 warm"
    assert replicas_of({}) == "–"

"""What the page shows of the service's answers and errors; Gradio is real."""

import asyncio
import json
import os
import re
from pathlib import Path

import cv2
import gradio as gr
import numpy as np
import openai
import pytest
from gradio.components.chatbot import ChatbotDataMessages
from gradio.queueing import Queue
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.testclient import TestClient

from serve_app.types import Detection, PictureResult, StageTimes
from serve_app.ui.chat import ChatTab, Speed, add_question, answered
from serve_app.ui.detection import SAMPLES, DetectionTab, TrackResult, default_tracks, result_html
from serve_app.ui.page import build_blocks, build_page
from serve_app.ui.restrictions import BlockRoutes
from serve_app.ui.service import Service
from serve_app.ui.status import StatusTab, replicas_of

NANO, BASELINE, STREAMING = "/predict/nano", "/pytorch/predict/nano", "/predict/nano_gpu_e2e_streaming"
TRACKS = [
    {"track": name, "path": path, "size": "nano", "summary": f"is {name}", "ready": ready,
     "model": {"name": "yolo", "backend": "openvino"}}
    for name, path, ready in (("A", BASELINE, False), ("B", NANO, True), ("D1", STREAMING, True))
]  # fmt: skip
HEART = {"x1": 0.25, "y1": 0.25, "x2": 0.75, "y2": 0.75, "confidence": 0.97, "class": 5, "class_name": "<heart>"}
TIMES = {"decode": 1.0, "preprocess": 2.0, "queue": 3.0, "infer": 40.0, "postprocess": 0.5, "total": 47.0}
BUSY = (503, {"error": "the queue of <vision> is full; try again"})
NOWHERE = "http://127.0.0.1:1"
CHAT = ("POST", "/v1/chat/completions")


def found(*detections):
    size = {"width": 640, "height": 480}
    return 200, {"model": {"name": "yolo"}, "image": size, "detections": list(detections), "timing_ms": TIMES}


@pytest.fixture
def pictures(service):
    with gr.Blocks():
        return DetectionTab(Service(service.url))


@pytest.fixture
def chat(service):
    with gr.Blocks():
        return ChatTab(Service(service.url))


def detect(pictures, *tracks, picture=str(SAMPLES[0])):
    """The last update of the page: picture and text of each side."""
    return list(pictures.detect(picture, 0.4, 0.5, 20, *tracks))[-1]


def test_an_open_page_holds_no_connection(service):
    """With one, a router could not stop while anybody's page is open."""
    assert build_blocks(Service(service.url)).get_config_file()["connect_heartbeat"] is False


def test_a_picture_goes_to_both_tracks_unchanged_and_comes_back_drawn(service, pictures):
    service.answers |= {("POST", NANO): found(HEART), ("POST", BASELINE): found()}
    first, first_text, second, second_text = detect(pictures, NANO, BASELINE)
    content = SAMPLES[0].read_bytes()
    assert service.requests == [(path, "conf=0.4&iou=0.5&max_det=20", content) for path in (NANO, BASELINE)]
    change = np.abs(cv2.imread(first).astype(int) - cv2.imread(second)).max(axis=2)
    assert (change[120:360, 160] > 40).mean() > 0.8  # the left edge of the heart's box
    assert (change[400:, :] < 40).all()
    assert "&lt;heart&gt; × 1" in first_text
    assert "<heart>" not in first_text
    assert "infer <b>40.0</b> ms" in first_text
    assert "Nothing was found" in second_text
    assert detect(pictures, NANO, "")[2:] == [None, '<p class="note">Choose a picture and press Detect.</p>']
    assert len(service.requests) == 3
    assert len(SAMPLES) >= 3
    assert all(cv2.imread(str(path)) is not None for path in SAMPLES)


def test_a_picture_that_a_browser_loads_is_not_written_again(service, pictures):
    """Both tracks draw the same picture, which has one file; a browser reads it while it is drawn again."""
    service.answers |= {("POST", NANO): found(HEART), ("POST", BASELINE): found(HEART)}
    steps = pictures.detect(str(SAMPLES[0]), 0.4, 0.5, 20, NANO, BASELINE)
    path = next(steps)[0]
    with open(path, "rb") as loading:
        *_, (first, _, second, _) = steps
        assert first == second == path
        assert not os.path.samestat(os.fstat(loading.fileno()), os.stat(path))  # the new file is another
        assert loading.read() == Path(path).read_bytes()


def test_an_error_of_one_track_is_shown_on_its_side_and_leaves_the_other(service, pictures):
    service.answers["POST", BASELINE] = found(HEART)
    for answer, headline, reason in (
        (BUSY, "The service is busy or not ready: try again in a moment", "&lt;vision&gt; is full"),
        ((415, {"error": "unknown format"}), "This is not a picture", "unknown format"),
        ((422, {"error": "it has 90 megapixels"}), "This picture can&#x27;t be decoded", "90 megapixels"),
        ((413, {"error": "over the limit"}), "This is too large", "over the limit"),
        ((404, {"error": "no such track"}), "This is not served", "no such track"),
        ((504, {"error": "too late"}), "This took too long", "too late"),
        ((500, {"error": "see the log"}), "The request failed", "see the log"),
        ((502, b"<html>gateway</html>", "text/html"), "The request failed", "not an answer of this service"),
    ):
        service.answers["POST", NANO] = answer
        nothing, text, drawn, _ = detect(pictures, NANO, BASELINE)
        assert nothing is None
        assert headline.replace("&#x27;", "'") in text.replace("&#x27;", "'"), text
        assert reason in text, text
        assert drawn


def test_what_cannot_be_sent_is_refused_and_a_missing_service_is_named(service, pictures, monkeypatch):
    assert "Upload a picture or choose a sample." in detect(pictures, NANO, "", picture=None)[1]
    for path in ("/v2/repository/models/x/unload", "/predict/../v2", "http://elsewhere/predict/nano"):
        assert "This is not served" in detect(pictures, path, "")[1], path
    monkeypatch.setattr(pictures._service, "url", NOWHERE)
    assert "busy or not ready" in detect(pictures, NANO, "")[1]
    assert service.requests == []


def test_bars_are_on_the_scale_of_the_slower_track_and_their_parts_add_up_to_the_round_trip():
    times = StageTimes(decode=1, preprocess=2, queue=3, infer=30, postprocess=4)
    picture = PictureResult(640, 480, (Detection(0, 0, 1, 1, 0.9, 5, "heart"),), times)
    text = result_html(TrackResult(picture, "drawn.jpg", 50.0), 200.0)
    assert "width: 25.0%" in text
    parts = [float(ms) for ms in re.findall(r"flex-grow: ([\d.]+)", text)]
    assert (sum(parts), parts[-1]) == (pytest.approx(50), pytest.approx(10))


async def test_the_tracks_that_are_served_can_be_chosen(service, pictures):
    service.answers["GET", "/tracks"] = (200, {"tracks": TRACKS})
    first, second = await pictures.update()
    assert [value for _, value in first.choices] == [track["path"] for track in TRACKS]
    assert (first.value, second.value, second.choices[-1][1]) == (NANO, STREAMING, "")
    for answer, info in (
        ((200, {"tracks": []}), "This service has no detection tracks"),
        (BUSY, "The service doesn't answer; reload this page to try again"),
    ):
        service.answers["GET", "/tracks"] = answer
        assert [one.info for one in await pictures.update()] == [info, info]
    for served, chosen in ((1, (BASELINE, "")), (2, (NANO, BASELINE)), (3, (NANO, STREAMING))):
        assert default_tracks(TRACKS[:served]) == chosen


def events(*pieces, finish=None, usage=None, error=None):
    """A language model's stream."""
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]} for text in pieces]
    chunks[-1]["choices"][0]["finish_reason"] = finish
    chunks += [{"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": usage, "total_tokens": 9}}] * bool(
        usage
    )
    lines = [
        json.dumps({"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"} | one) for one in chunks
    ]
    lines.append(json.dumps({"error": {"message": error, "code": 500}}) if error else "[DONE]")
    return 200, "".join(f"data: {line}\n\n" for line in lines).encode(), "text/event-stream"


async def ask(chat, question="What?", model="m"):
    _, messages = add_question(question, [])
    return [update async for update in chat.answer(messages, model, 0.0, 64)]


async def test_an_answer_is_streamed_with_its_speed(service, chat):
    service.answers[CHAT] = events("Triton ", "<b>serves</b>", finish="stop", usage=7)
    updates = await ask(chat, "What is it?")
    messages, speed = updates[-1]
    question = {"role": "user", "content": "What is it?"}
    assert messages == [question, {"role": "assistant", "content": "Triton <b>serves</b>"}]
    assert "Waiting for the first token" in updates[0][1]
    assert "<b>7</b><span>tokens</span>" in speed
    assert "tokens/s" in speed
    (request,) = [json.loads(body) for *_, body in service.requests]
    assert {"model": "m", "max_tokens": 64, "stream": True, "messages": [question]}.items() <= request.items()
    service.answers[CHAT] = events("Tri", finish="length")
    assert "cut off at the maximum of new tokens" in (await ask(chat))[-1][1]


async def test_an_error_of_a_model_is_shown_and_keeps_what_was_streamed(service, chat, monkeypatch):
    for answer, headline, reason in (
        ((503, {"error": {"message": "'m' was not up within 5 s"}}), "busy or not ready", "was not up"),
        ((404, {"error": {"message": "The model `m` does not exist"}}), "not served", "does not exist"),
        ((400, {"error": {"message": "too <long>"}}), "The request failed", "too &lt;long&gt;"),
        (events("Half of", error="the engine died"), "The request failed", "the engine died"),
    ):
        service.answers[CHAT] = answer
        messages, text = (await ask(chat))[-1]
        assert [message["content"] for message in messages] == ["What?", *["Half of"] * (answer[0] == 200)]
        assert headline in text
        assert reason in text
    monkeypatch.setattr(chat, "_client", openai.AsyncOpenAI(base_url=NOWHERE, api_key="none", max_retries=0))
    assert "busy or not ready" in (await ask(chat))[-1][1]


async def test_nothing_is_sent_without_a_question_or_a_model(service, chat):
    assert await ask(chat, "   ") == []
    assert "Choose a model first." in (await ask(chat, model=None))[-1][1]
    assert service.requests == []


def test_speed_counts_from_the_question_and_between_tokens():
    text = Speed(asked_s=10.0, first_s=10.25, last_s=12.25, tokens=101).to_html()
    for value, name in (
        ("50.0", "tokens/s"),
        ("250", "ms to the first token"),
        ("101", "tokens"),
        ("2.25", "s in total"),
    ):
        assert f"<b>{value}</b><span>{name}</span>" in text


def test_a_conversation_is_sent_as_text_without_unanswered_questions(chat):
    parts = [{"type": "text", "text": "What "}, {"type": "text", "text": "is it?"}]
    file = {"type": "file", "file": {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}}
    component = {"type": "component", "component": "textbox", "value": "x", "constructor_args": {}, "props": {}}
    payload = ChatbotDataMessages(root=[{"role": "user", "content": [*parts, file, component]}])
    assert chat._chatbot.preprocess(payload) == [{"role": "user", "content": "What is it?"}]
    roles = {"a": "user", "b": "assistant", "lost": "user", "c": "user"}
    messages = [{"role": role, "content": text} for text, role in roles.items()]
    assert [one["content"] for one in answered(messages)] == ["a", "b", "c"]


def test_other_hosts_and_endless_streams_are_blocked():
    application = Starlette(routes=[Mount("/", PlainTextResponse("the page"))], middleware=[Middleware(BlockRoutes)])
    for path, status in {
        "gradio_api/file=http://127.0.0.1/": 404,
        "gradio_api/file= HTTPS://127.0.0.1/": 404,
        "gradio_api/proxy=http://127.0.0.1/": 404,
        "gradio_api/heartbeat/x": 404,
        "gradio_api/vibe-edit/": 404,
        "gradio_api/file=/tmp/gradio/a/detections.jpg": 200,
        "": 200,
    }.items():
        assert TestClient(application).get(f"/ui/{path}").status_code == status, path


async def test_the_models_that_are_served_can_be_chosen(service, chat):
    two = [{"id": "one", "root": "one"}, {"id": "two", "root": "one"}]
    for answer, choices, info in (
        ((200, {"data": two}), ["one", "two"], ""),
        ((200, {"data": []}), [], "This service has no language models"),
        (BUSY, [], "The service doesn't answer; reload this page to try again"),
    ):
        service.answers["GET", "/v1/models"] = answer
        model = await chat.update()
        assert ([value for _, value in model.choices], model.info) == (choices, info)
        assert model.value == next(iter(choices), None)


async def test_the_status_shows_everything_and_the_error_of_what_cannot_be_read(service):
    with gr.Blocks():
        status = StatusTab(Service(service.url), gr.Tab("Status"))
    index = [
        {"name": "talker", "version": "1", "state": "UNAVAILABLE", "reason": "asleep: <a> request wakes it"},
        {"name": "yolo", "version": "1", "state": "READY"},
    ]
    service.answers |= {
        ("GET", "/health"): (503, {"live": True, "ready": False, "deployments": {"vision": False, "talker": True}}),
        ("GET", "/warmup_status"): (200, {"deployments": {"talker": {"talker": {"replicas_ready": 1, "replicas": 2}}}}),
        ("GET", "/tracks"): (200, {"tracks": TRACKS}),
        ("GET", "/v1/models"): (200, {"data": [{"id": name, "root": "talker"} for name in ("talker", "adapter")]}),
        ("POST", "/v2/repository/index"): (200, index),
        ("GET", "/v2/models/stats"): (200, {"model_stats": [{"name": "yolo", "inference_count": 77}]}),
    }
    text = await status.show()
    for row in (
        r"vision</td><td>.{,40}not ready</span></td><td>–",
        r"talker</td><td>.{,40}ready</span></td><td>1 of 2 warm",
        r"yolo</td><td>1</td><td>.{,40}ready</span></td><td>77",
    ):
        assert re.search(row, text), row
    assert text.count("asleep: &lt;a&gt; request wakes it") == 3  # the model in both tables, and its adapter
    assert text.count("/predict/") == len(TRACKS)
    service.answers["POST", "/v2/repository/index"] = BUSY
    text = await status.show()
    assert text.count("busy or not ready") == 2  # in the tables of models and of language models
    assert NANO in text
    models = {"a": {"replicas_ready": 2, "replicas": 2}, "b": {"replicas_ready": 1, "replicas": 2}}
    assert (replicas_of(models), replicas_of({})) == ("1 of 2 warm", "–")


async def test_a_page_that_nobody_uses_hardly_looks_at_its_queue(service, monkeypatch):
    page = build_page(service.url)
    looks = []
    monkeypatch.setattr(Queue, "__len__", lambda _queue: looks.append(1) or 0)
    async with page.router.lifespan_context(page):
        looks.clear()
        await asyncio.sleep(1)
    assert 0 < len(looks) <= 25

"""What a stranger may send to hurt others: it is refused, memory comes back, and others are answered."""

import gzip
import io
import threading
import time
from contextlib import contextmanager

import httpx
import psutil
import pytest
from PIL import Image

from serve_app.settings import PROJECT_ROOT
from tests.e2e.service import wait_until

pytestmark = pytest.mark.usefixtures("languages")  # while engines start, they and not the attack keep others waiting
PICTURE = (PROJECT_ROOT / "docs" / "shapes.jpg").read_bytes()
MEMORY = 200 << 20
PATIENCE_S = 0.5  # of a health check
CHAT = {"model": "demo-llm", "messages": [{"role": "user", "content": "What is serve_app?"}], "temperature": 0}
PLAIN = {"model": "demo-llm", "prompt": "a"}


def resident(service):
    return sum(psutil.Process(pid).memory_info().rss for pid in service.replicas("router"))


@contextmanager
def others_are_answered(service):
    """Every health check of every router meanwhile, and memory afterwards."""
    before, ended, slowest = resident(service), threading.Event(), []

    def watch(url):
        with httpx.Client(base_url=url, timeout=30) as client:
            while not ended.is_set():
                began = time.monotonic()
                assert client.get("/v2/health/live").status_code == 200
                slowest.append(time.monotonic() - began)
                ended.wait(0.01)

    watching = [threading.Thread(target=watch, args=[url]) for url in service.router_urls()]
    for one in watching:
        one.start()
    wait_until(lambda: len(slowest) >= len(watching), 10, "health is checked")
    try:
        yield
    finally:
        ended.set()
        for one in watching:
            one.join()
    assert max(slowest) < PATIENCE_S
    assert resident(service) < before + MEMORY


def test_a_small_body_that_becomes_millions_of_lists_is_refused_and_nobody_waits(service, client):
    bomb = gzip.compress(b'{"inputs": [' + b"[]," * (21 << 20) + b"[]]}")
    assert len(bomb) < 100 << 10
    for path in ("/v2/models/identity/infer", "/v2/models/identity/generate", "/v1/chat/completions"):
        with others_are_answered(service):
            answer = client.post(path, content=bomb, headers={"Content-Encoding": "gzip"}, timeout=20)
        assert answer.status_code == 413, answer.text
        assert "lists and objects" in answer.text


def test_a_picture_of_thousands_of_scans_is_refused_on_every_track_and_a_good_one_is_answered(service, client):
    buffer = io.BytesIO()
    Image.new("RGB", (3000, 2000), "grey").save(buffer, "JPEG", progressive=True)
    jpeg = buffer.getvalue()
    last = jpeg.rfind(b"\xff\xda")
    bomb = jpeg[:last] + jpeg[last:-2] * 5000 + jpeg[-2:]
    tracks = [track["path"] for track in client.get("/tracks").json()["tracks"]]
    with others_are_answered(service):
        for path in tracks:
            answer = client.post(path, content=bomb, timeout=20)
            assert answer.status_code == 422, answer.text
            assert "scans" in answer.json()["error"]
    for path in tracks:
        assert len(client.post(path, content=PICTURE).json()["detections"]) == 6, path


@pytest.mark.usefixtures("languages")
def test_what_would_cost_an_engine_too_much_is_refused_and_a_good_question_answered(service, client, pairs):
    def of_depth(depth):
        schema = {"type": "string"}
        for _ in range(depth):
            schema = {"type": "object", "properties": {"a": schema}}
        return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}

    for path, document, reason in (
        ("completions", PLAIN | {"prompt": ["a"] * 1024, "n": 16}, "prompts times n must be at most 64, got 16384"),
        ("chat/completions", CHAT | of_depth(400), "it is nested too deeply"),
        ("chat/completions", CHAT | of_depth(20), "response_format: nested more than 32 levels deep"),
        ("chat/completions", CHAT | {"structured_outputs": {"regex": "(a{999}){999}"}}, "repeats multiply"),
        ("chat/completions", CHAT | {"structured_outputs": {"grammar": "root ::= ("}}, "grammar"),
        ("chat/completions", CHAT | {"structured_outputs": {"regex": "(("}}, ""),
        ("chat/completions", CHAT | {"chat_template": "{{ 1 }}"}, "unknown field 'chat_template'"),
        ("completions", PLAIN | {"kv_transfer_params": {"a": 1}}, "unknown field 'kv_transfer_params'"),
    ):  # fmt: skip
        with others_are_answered(service):
            answer = client.post(f"/v1/{path}", json=document, timeout=20)
        assert answer.status_code == 400, (document.keys(), answer.text)
        assert reason in answer.json()["error"]["message"]
    question = CHAT | {"messages": [{"role": "user", "content": pairs[0].question}]}
    answer = client.post("/v1/chat/completions", json=question)
    assert answer.json()["choices"][0]["message"]["content"] == pairs[0].answer


def test_a_service_for_this_machine_alone_has_no_port_open_to_others(service, languages):
    assert service.open_ports() == set()

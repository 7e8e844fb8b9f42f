"""What a request costs in the router, in calls of functions, which no machine changes; replicas answer at once.

A change that needs more says so here. `scripts/bench cpu` measures what it costs in time.
"""

import asyncio
import cProfile
import json
import pstats
from dataclasses import dataclass

import numpy as np
import pytest
import yaml

from serve_app.detection.tracks import tracks_of
from serve_app.router import router
from serve_app.router.hosted import Hosted, HostedUpstream
from serve_app.settings import PROJECT_ROOT, Settings
from serve_app.types import Detection, InferAnswer, PictureResult, StageTimes, Tensor, TrackAnswer
from tests.e2e.service import SHAPES

REQUESTS = 50
MOST = 1.15  # times what is written here
PICTURE = SHAPES.read_bytes()
BOUNDARY = b"--b\r\n"
FORM = BOUNDARY + b'Content-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n' + PICTURE + b"\r\n--b--\r\n"
FOUND = tuple(Detection(10.0, 20.0, 30.0, 40.0, 0.9, number, "circle") for number in range(6))
VALUES = np.zeros(15_000, np.float32).tobytes()  # 60 KB
TENSOR = {"name": "INPUT0", "datatype": "FP32", "shape": [1, 15_000], "parameters": {"binary_data_size": len(VALUES)}}
HEAD = json.dumps({"inputs": [TENSOR], "parameters": {"binary_data_output": True}}).encode()
QUESTION = json.dumps(
    {"model": "demo-llm", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
).encode()
EVENT = 'data: {"choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
EVENTS = 100


@dataclass(frozen=True)
class Asked:
    path: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


PICTURES = {
    "a picture": Asked("/predict/nano_gpu_e2e_batch", PICTURE, ((b"content-type", b"image/jpeg"),)),
    "a form": Asked("/predict/nano", FORM, ((b"content-type", b"multipart/form-data; boundary=b"),)),
    "60 KB of binary tensors": Asked(
        "/v2/models/echo/infer", HEAD + VALUES, ((b"inference-header-content-length", str(len(HEAD)).encode()),)
    ),
}
COSTS = {"a picture": 451, "a form": 731, "60 KB of binary tensors": 621}
COST_OF_A_PIECE = 86


class Replica:
    """Answers at once."""

    async def detect(self, *_):
        await asyncio.sleep(0)
        return TrackAnswer("yolo", "openvino", "cpu", (PictureResult(640, 480, FOUND, StageTimes(1, 2, 3, 4, 5)),))

    async def infer(self, request):
        await asyncio.sleep(0)
        return InferAnswer("echo", "1", outputs=(Tensor("OUTPUT0", "FP32", (1, 15_000), request.inputs[0].data),))

    def index(self):
        return "replica", [{"name": "echo", "version": "1", "state": "READY"}]


@pytest.fixture
def application(handle, deploy, monkeypatch):
    """The router's, as the committed configuration has it."""
    monkeypatch.setattr(router, "begin_replica", lambda: None)
    (whole,) = yaml.safe_load((PROJECT_ROOT / "configs" / "serve.yaml").read_text())["applications"]
    settings = Settings.model_validate(whole["args"] | {"baseline": None, "playground": None})
    replica = Replica()
    hosted = HostedUpstream(Hosted("vision", Replica, (), 256), replica, handle({"index": replica.index}))
    tracks = dict.fromkeys(tracks_of(settings.detection.models, ()), "vision")
    _, events = deploy("demo-llm", script=[[(200, EVENT, 0)] * EVENTS + [(200, "", 7)]] * 1000)
    return router.Router(settings, tracks, {"demo-llm": events}, hosted=hosted).__serve_build_asgi_app__()


async def ask(application, asked):
    pieces = [asked.body[start : start + 65536] for start in range(0, len(asked.body), 65536)]
    sent = []

    async def receive():
        if not pieces:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message):
        sent.append(message)

    length = (b"content-length", str(len(asked.body)).encode())
    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": asked.path, "query_string": b"",
             "headers": [(b"host", b"serve"), (b"accept", b"*/*"), length, *asked.headers], "client": ("127.0.0.1", 1),
             "server": ("127.0.0.1", 8000), "scheme": "http", "root_path": "", "asgi": {"version": "3.0"}}  # fmt: skip
    await application(scope, receive, send)
    assert sent[0]["status"] == 200, sent
    return sent


async def calls_of(application, asked):
    for _ in range(3):
        await ask(application, asked)
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(REQUESTS):
        await ask(application, asked)
    profile.disable()
    return pstats.Stats(profile).total_calls / REQUESTS


@pytest.mark.parametrize("kind", PICTURES)
async def test_a_request_costs_no_more_than_it_did(application, kind):
    assert await calls_of(application, PICTURES[kind]) <= COSTS[kind] * MOST


async def test_a_piece_of_a_stream_costs_no_more_than_it_did(application):
    sent = await ask(application, Asked("/v1/chat/completions", QUESTION))
    assert b"".join(message.get("body", b"") for message in sent).decode() == EVENT * EVENTS
    assert await calls_of(application, Asked("/v1/chat/completions", QUESTION)) / EVENTS <= COST_OF_A_PIECE * MOST

"""The sides of the comparisons P1 to P5 and P9, the service first, and how each is measured."""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from tritonclient.http import InferenceServerClient, InferInput

from serve_app.clients.pictures import read_pictures
from serve_app.errors import ConfigurationError, ServeAppError
from serve_app.settings import LanguageModelSettings, Settings, read_config, settings_of
from serve_app.tools.bench.baselines import bare_serve
from serve_app.tools.bench.baselines.gateway import gateway
from serve_app.tools.bench.baselines.servers import tritonserver, vllm_serve
from serve_app.tools.bench.baselines.service import MODELS
from serve_app.tools.bench.connection import Response, build_post
from serve_app.tools.bench.detections import EXACT, ROUNDED, require_equal
from serve_app.tools.bench.load import Load, LoadResult, run_http_load
from serve_app.tools.bench.ratio.rounds import Measurement, Side
from serve_app.tools.bench.report import count_errors, machine
from serve_app.tools.bench.tracks import Service, Track
from serve_app.triton.repository import ModelRepository

BARE_LOOP = "serve_app.tools.bench.baselines.openvino_loop"
BOUNDARY = "picture"
IDENTITY_BYTES, IDENTITY_PATH = 60 << 10, "/v2/models/identity/infer"
PROMPT, TOKENS = "What is serve_app?", 64


def measure_pictures(url: str, path: str, pictures: Sequence[bytes], load: Load) -> Measurement:
    """Multipart forms, which every stack accepts."""
    content_type = f"multipart/form-data; boundary={BOUNDARY}"
    requests = [build_post(url, path, _form(picture), content_type) for picture in pictures]
    result = run_http_load(url, requests, load)
    return _measurement(result, {"images/s": result.throughput})


def _form(picture: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="picture"\r\n\r\n'
    return head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode()


def identity_request(url: str, path: str = IDENTITY_PATH) -> bytes:
    """60 KB in the binary form of tritonclient."""
    tensor = InferInput("INPUT0", [IDENTITY_BYTES], "UINT8")
    tensor.set_data_from_numpy(np.arange(IDENTITY_BYTES, dtype=np.uint8))
    body, header_bytes = InferenceServerClient.generate_request_body([tensor])
    return build_post(url, path, bytes(body), Inference_Header_Content_Length=str(header_bytes))


def measure_identity(request: bytes, url: str, load: Load) -> Measurement:
    def check(response: Response) -> str:
        return "" if len(response.body) > IDENTITY_BYTES else "a short answer"

    result = run_http_load(url, [request], load, check)
    return _measurement(result, {"requests/s": result.throughput})


def measure_completions(url: str, model: str, load: Load) -> Measurement:
    """Streams with a fixed number of tokens: tokens per second and mean time to first token."""
    document = {"model": model, "prompt": PROMPT, "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0}
    document |= {"stream": True, "stream_options": {"include_usage": True}}
    request = build_post(url, "/v1/completions", json.dumps(document).encode(), "application/json")

    def check(response: Response) -> str:
        return "" if f'"completion_tokens":{TOKENS}'.encode() in response.body else f"not {TOKENS} tokens"

    result = run_http_load(url, [request], load, check)
    first_ms = float(np.mean(result.first_byte_ms)) if result.first_byte_ms else math.nan
    return _measurement(result, {"tokens/s": result.throughput * TOKENS, "first token ms": first_ms})


def _measurement(result: LoadResult, numbers: dict[str, float]) -> Measurement:
    numbers["p99 ms"] = result.percentiles_ms.get("p99", math.nan)
    return Measurement(numbers, (*count_errors(result.errors), *result.warnings), result.errors.total())


@dataclass(frozen=True)
class Setup:
    """`url` and `pid` are those of the service, if one was started; `baselines` ends what is entered into it."""

    config: Path
    url: str
    pid: int
    pictures: Path
    load: Load
    requests: int
    baselines: ExitStack

    @cached_property
    def settings(self) -> Settings:
        return settings_of(read_config(self.config))

    @property
    def language_model(self) -> LanguageModelSettings:
        if not self.settings.llms:
            raise ConfigurationError(f"{self.config} has no language model")
        return self.settings.llms[0]

    @property
    def repository(self) -> Path:
        return ModelRepository.of(self.settings.triton[0], self.settings.detection).path

    @property
    def picture(self) -> bytes:
        return read_pictures(self.pictures)[0]

    def tracks(self) -> list[Track]:
        return Service(self.url).tracks()

    def track(self, name: str) -> Track:
        """Of the first size that is served."""
        for track in self.tracks():
            if track.name == name:
                return track
        raise ConfigurationError(f"{self.config} does not serve track {name}")

    def detections(self, path: str) -> list[dict[str, Any]]:
        return Service(self.url).detect(path, self.picture)

    def pictures_to(self, track: Track, name: str = "", url: str = "") -> Side:
        pictures = read_pictures(self.pictures)
        return Side(name or track.name, lambda: measure_pictures(url or self.url, track.path, pictures, self.load))


def d3_and_bare_loop(setup: Setup) -> list[Side]:
    d3 = setup.track("D3")
    engine = setup.repository / f"yolo_{d3.size}_engine_batch" / "1"
    command = [sys.executable, "-m", BARE_LOOP, str(engine), "--pictures", str(setup.pictures)]
    command += ["--seconds", str(setup.load.duration_s), "--warmup", str(setup.load.warmup_s)]
    expected = setup.detections(d3.path)

    def measure_loop() -> Measurement:
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            lines = ran.stderr.strip().splitlines() or [f"status {ran.returncode}"]
            raise ServeAppError(f"the bare loop failed: {lines[-1]}")
        numbers = json.loads(ran.stdout)
        require_equal(expected, numbers.pop("detections"), "the bare loop")
        return Measurement(numbers)

    return [setup.pictures_to(d3), Side("bare loop", measure_loop)]


def best_track_and_track_a(setup: Setup) -> list[Side]:
    """Measures every track once to find the best. Track A computes in f32, whatever the engines do."""
    track_a = setup.track("A")
    precisions = {model.precision for model in setup.settings.detection.models.values()}
    tolerance = EXACT if precisions == {"f32"} else ROUNDED
    others = [track for track in setup.tracks() if track.size == track_a.size and track.name != "A"]
    expected = setup.detections(track_a.path)
    for other in others:
        require_equal(expected, setup.detections(other.path), f"track {other.name}", tolerance)
    sides = [setup.pictures_to(other) for other in others]
    best = max(sides, key=lambda side: side.measure().numbers["images/s"])
    return [best, setup.pictures_to(track_a)]


def track_c_and_gateway(setup: Setup) -> list[Side]:
    """Both prepare the picture before the engine, which does NMS."""
    track = setup.track("C")
    server = setup.baselines.enter_context(tritonserver(setup.repository, [track.model]))
    url = setup.baselines.enter_context(gateway(server.grpc, max(2, machine()["cores"])))
    found = httpx.post(f"{url}{track.path}", files={"image": setup.picture}, timeout=60).raise_for_status()
    require_equal(setup.detections(track.path), found.json()["detections"], "the gateway")
    return [setup.pictures_to(track), setup.pictures_to(track, "gateway + tritonserver", url)]


def identity_and_tritonserver(setup: Setup) -> list[Side]:
    server = setup.baselines.enter_context(tritonserver(MODELS, ["identity"], "tritonserver-identity"))
    return [_identity_side("serve_app", setup.url, setup.load), _identity_side("tritonserver", server.url, setup.load)]


def identity_and_bare_serve(setup: Setup) -> list[Side]:
    """The other side is what Serve, its HAProxy and its HTTP server take, so no service on them gets above it."""
    return [
        _identity_side("serve_app", setup.url, setup.load),
        _identity_side("Ray Serve alone", setup.url, setup.load, bare_serve.PATH),
    ]


def _identity_side(name: str, url: str, load: Load, path: str = IDENTITY_PATH) -> Side:
    request = identity_request(url, path)
    return Side(name, lambda: measure_identity(request, url, load))


def language_model_and_vllm(setup: Setup) -> list[Side]:
    model = setup.language_model
    url = setup.baselines.enter_context(vllm_serve(model))
    return [
        Side(model.name, lambda: measure_completions(setup.url, model.name, setup.load)),
        Side("vllm serve", lambda: measure_completions(url, model.name, setup.load)),
    ]

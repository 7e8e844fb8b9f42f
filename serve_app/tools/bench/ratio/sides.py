"""The sides of the comparisons P1 to P5: each function starts a baseline and returns both sides, the service first."""

import json
import subprocess
import sys

import httpx

from serve_app.errors import ServeAppError
from serve_app.tools.bench.baselines import openvino_loop, service
from serve_app.tools.bench.baselines.gateway import gateway
from serve_app.tools.bench.baselines.servers import tritonserver, vllm_serve
from serve_app.tools.bench.detections import require_equal
from serve_app.tools.bench.ratio.measurements import measure_completions, measure_identity
from serve_app.tools.bench.ratio.rounds import Measurement, Side
from serve_app.tools.bench.ratio.setup import Setup
from serve_app.tools.bench.report import machine


def d3_and_bare_loop(setup: Setup) -> list[Side]:
    d3 = setup.track("D3")
    engine = setup.repository / f"yolo_{d3.size}_engine_batch" / "1"
    command = [sys.executable, "-m", openvino_loop.__name__, str(engine), "--pictures", str(setup.pictures)]
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
    """Measures every track once to find the best."""
    track_a = setup.track("A")
    others = [track for track in setup.tracks() if track.size == track_a.size and track.name != "A"]
    expected = setup.detections(track_a.path)
    for other in others:
        require_equal(expected, setup.detections(other.path), f"track {other.name}")
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
    server = setup.baselines.enter_context(tritonserver(service.MODELS, ["identity"], "tritonserver-identity"))
    return [
        Side("serve_app", lambda: measure_identity(setup.url, setup.load)),
        Side("tritonserver", lambda: measure_identity(server.url, setup.load)),
    ]


def language_model_and_vllm(setup: Setup) -> list[Side]:
    model = setup.language_model
    url = setup.baselines.enter_context(vllm_serve(model))
    return [
        Side(model.name, lambda: measure_completions(setup.url, model.name, setup.load)),
        Side("vllm serve", lambda: measure_completions(url, model.name, setup.load)),
    ]

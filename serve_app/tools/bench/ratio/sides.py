"""Who stands against whom: each function starts the service's peer and says how both are measured."""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import httpx

from serve_app.errors import ServeAppError
from serve_app.tools.bench.baselines import service as ours
from serve_app.tools.bench.baselines.gateway import gateway
from serve_app.tools.bench.baselines.servers import tritonserver, vllm_serve
from serve_app.tools.bench.ratio.measurements import completion_turn, identity_turn
from serve_app.tools.bench.ratio.rounds import Contender, Measured
from serve_app.tools.bench.ratio.setup import Stage
from serve_app.tools.bench.report import machine
from serve_app.tools.bench.tracks import differences


def d3_and_bare_loop(stage: Stage) -> list[Contender]:
    d3 = stage.track("D3")
    engine = stage.repository / f"yolo_{d3.size}_engine_batch" / "1"
    command = [
        sys.executable,
        "-m",
        "serve_app.tools.bench.baselines.openvino_loop",
        str(engine),
        "--pictures",
        str(stage.pictures),
    ]
    command += ["--seconds", str(stage.load.duration_s), "--warmup", str(stage.load.warmup_s)]
    expected = stage.detections(d3.path)

    def bare_turn() -> Measured:
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            told = ran.stderr.strip().splitlines() or [f"status {ran.returncode}"]
            raise ServeAppError(f"the bare loop failed: {told[-1]}")
        numbers = json.loads(ran.stdout)
        require_equal(expected, numbers.pop("detections"), "the bare loop")
        return Measured(numbers)

    return [stage.pictures_to(d3), Contender("bare loop", bare_turn)]


def best_track_and_baseline(stage: Stage) -> list[Contender]:
    """The best is found by a turn of each."""
    baseline = stage.track("A")
    others = [target for target in stage.targets() if target.size == baseline.size and target.track != "A"]
    expected = stage.detections(baseline.path)
    for other in others:
        require_equal(expected, stage.detections(other.path), f"track {other.track}")
    contenders = [stage.pictures_to(other) for other in others]
    rates = [contender.turn().numbers["images/s"] for contender in contenders]
    return [contenders[rates.index(max(rates))], stage.pictures_to(baseline)]


def engine_and_gateway(stage: Stage) -> list[Contender]:
    """Track C in both: the picture is prepared before the engine, and suppression is in it."""
    track = stage.track("C")
    server = stage.peers.enter_context(tritonserver(stage.repository, [track.model]))
    url = stage.peers.enter_context(gateway(server.grpc, max(2, machine()["cores"])))
    found = httpx.post(f"{url}{track.path}", files={"image": stage.first_picture}, timeout=60).raise_for_status()
    require_equal(stage.detections(track.path), found.json()["detections"], "the gateway")
    return [stage.pictures_to(track), stage.pictures_to(track, "gateway + tritonserver", url)]


def front_ends(stage: Stage) -> list[Contender]:
    server = stage.peers.enter_context(tritonserver(ours.MODELS, ["identity"], "tritonserver-identity"))
    return [
        Contender("serve_app", lambda: identity_turn(stage.url, stage.load)),
        Contender("tritonserver", lambda: identity_turn(server.url, stage.load)),
    ]


def language_models(stage: Stage) -> list[Contender]:
    model = stage.language_model
    url = stage.peers.enter_context(vllm_serve(model))
    return [
        Contender(model.name, lambda: completion_turn(stage.url, model.name, stage.load)),
        Contender("vllm serve", lambda: completion_turn(url, model.name, stage.load)),
    ]


def require_equal(expected: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], whose: str) -> None:
    """A ratio of different answers would compare nothing."""
    if told := differences(expected, found):
        raise ServeAppError(f"{whose} sees otherwise than the service: {'; '.join(told)}")

"""What is measured of the service without a peer: its start, what it holds after many requests, and how it scales."""

import asyncio
import time

import httpx

from serve_app.errors import UnavailableError
from serve_app.tools.bench.baselines import service as ours
from serve_app.tools.bench.connection import post
from serve_app.tools.bench.load import Generator, Plan
from serve_app.tools.bench.ratio.autoscaling import run_course
from serve_app.tools.bench.ratio.measurements import identity_request
from serve_app.tools.bench.ratio.rounds import Contender, Measured
from serve_app.tools.bench.ratio.setup import Stage
from serve_app.tools.bench.ratio.soak import Footprint

TOKEN_PATIENCE_S = 300.0
SLICE_S = 10.0
IDENTITIES_A_PICTURE = 49


def starts(stage: Stage) -> list[Contender]:
    """From `serve run`'s start to the first picture's detections, and to a language model's first token."""
    picture, model = stage.first_picture, stage.language_model.name
    size = next(iter(stage.settings.detection.models))
    completion = {"model": model, "prompt": "What is vLLM?", "max_tokens": 1}

    def detects(url: str) -> bool:
        return _is_answered(f"{url}/predict/{size}", content=picture)

    def turn() -> Measured:
        began = time.monotonic()
        with ours.service(stage.config, "service-start", ready=detects) as run:
            first_detection_s = time.monotonic() - began
            while not _is_answered(f"{run.url}/v1/completions", json=completion):
                if time.monotonic() > began + TOKEN_PATIENCE_S:
                    raise UnavailableError(f"{model} gave no token within {TOKEN_PATIENCE_S:.0f} s")
                time.sleep(0.2)
            return Measured({"first detection s": first_detection_s, "first token s": time.monotonic() - began})

    return [Contender("start", turn)]


def _is_answered(url: str, **body: object) -> bool:
    try:
        return httpx.post(url, timeout=5, **body).is_success  # type: ignore[arg-type]
    except httpx.HTTPError:
        return False


def soak(stage: Stage) -> list[Contender]:
    """What the service's processes hold after so many requests ÷ what they held after a tenth of them."""
    path = stage.track("D3").path
    requests = [identity_request(stage.url)] * IDENTITIES_A_PICTURE + [post(stage.url, path, stage.first_picture)]

    def send(count: int) -> int:
        """How many of them failed."""
        plan = Plan(stage.url, requests, stage.load.clients, SLICE_S, 0.0)
        sent = failed = 0
        while sent < count:
            outcome = Generator(plan).run()
            failed += outcome.errors.total()
            sent += len(outcome.took_ms) + outcome.errors.total()
        return failed

    def turn() -> Measured:
        failed = send(stage.requests // 10)
        before = Footprint.of(stage.pid)
        failed += send(stage.requests)
        after = Footprint.of(stage.pid)
        growth = {kind: getattr(after, kind) / getattr(before, kind) for kind in Footprint.__slots__}
        return Measured(growth, (f"{failed} requests failed",) if failed else (), failed)

    return [Contender("soak", turn)]


def step(stage: Stage) -> list[Contender]:
    """A load of three times what one replica can do."""

    def turn() -> Measured:
        course = asyncio.run(run_course(stage.url))
        numbers = {"failed requests": float(course.failed), "asked for replicas after s": course.asked_after_s}
        return Measured(numbers | {"replicas at the end": float(course.samples[-1].running)}, (), course.failed)

    return [Contender("step", turn)]

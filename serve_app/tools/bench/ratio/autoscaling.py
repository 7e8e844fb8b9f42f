"""P8: a load that steps to three times the capacity of a replica and back, while the replicas are sampled."""

import asyncio
import json
import time
from collections.abc import Coroutine
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from serve_app.errors import UnavailableError
from serve_app.tools.bench.baselines.service import PACED, Config, add_model, remove_deployments, router_of
from serve_app.tools.bench.ratio.rounds import Measurement, Side
from serve_app.tools.bench.ratio.sides import Setup
from serve_app.tools.bench.report import chart
from serve_app.tools.launch.status import read_status

WORK_S = 0.1  # of a request; a replica works on one at a time
CAPACITY_PER_S = 1 / WORK_S
LOAD_PER_S = 3 * CAPACITY_PER_S
TARGET_QUEUE_MS = 20.0
MAX_REPLICAS = 6
LOOK_BACK_S = 10.0
QUIET_S, BUSY_S, TIMEOUT_S = 10, 60, 300
REQUEST = {"inputs": [{"name": "SECONDS", "datatype": "FP32", "shape": [1, 1], "data": [WORK_S]}]}
DEPLOYMENT: dict[str, Any] = PACED | {
    "autoscaling_config": {
        "min_replicas": 1,
        "max_replicas": MAX_REPLICAS,
        "metrics_interval_s": 2,
        "look_back_period_s": LOOK_BACK_S,
        "upscale_delay_s": 2,
        "downscale_delay_s": 10,
        "policy": {
            "policy_function": "serve_app.telemetry.autoscaling:QueueTimePolicy",
            "policy_kwargs": {"target_queue_ms": TARGET_QUEUE_MS},
        },
    },
}


def serve_paced_model(config: Config) -> None:
    """Only the model that takes WORK_S per request, in a deployment that scales."""
    remove_deployments(config, "baseline", "playground")
    (application,) = config["applications"]
    application["args"]["llms"] = []
    router_of(application)["max_wait_s"] = TIMEOUT_S  # by the rate of one replica: others are about to start
    add_model(config, DEPLOYMENT)


@dataclass(frozen=True, slots=True)
class Sample:
    """Taken each second; `queue_ms` is from Triton's statistics, over all replicas."""

    at: float
    sent: int
    answered: int
    queue_ms: float
    wanted: int
    running: int


@dataclass(slots=True)
class LoadStep:
    """Requests, their statuses, and samples of the deployment."""

    started: float = field(default_factory=time.monotonic)
    sent: int = 0
    statuses: list[int] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    @property
    def failed(self) -> int:
        return self.sent - self.statuses.count(200)

    @property
    def asked_after_s(self) -> float:
        """Time from the step until the first new replica was requested."""
        return next((sample.at for sample in self.samples if sample.wanted > 1), TIMEOUT_S) - QUIET_S


def load_step(setup: Setup) -> list[Side]:
    def measure() -> Measurement:
        step = asyncio.run(run_load_step(setup.url))
        numbers = {"failed requests": float(step.failed), "asked for replicas after s": step.asked_after_s}
        return Measurement(numbers | {"replicas at the end": float(step.samples[-1].running)}, (), step.failed)

    return [Side("step", measure)]


async def run_load_step(url: str) -> LoadStep:
    step = LoadStep()
    limits = httpx.Limits(max_connections=2000, max_keepalive_connections=200)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        sampling = asyncio.create_task(_sample(client, step))
        await asyncio.sleep(QUIET_S)
        await _while_sampling(sampling, _load(client, step))
        await _while_sampling(sampling, _back_to_one(step))
        await asyncio.sleep(5)
        sampling.cancel()
    return step


async def _while_sampling(sampling: asyncio.Task[None], part: Coroutine[Any, Any, None]) -> None:
    """Ends the part if sampling fails."""
    running_part = asyncio.ensure_future(part)
    await asyncio.wait({sampling, running_part}, return_when=asyncio.FIRST_COMPLETED)
    if sampling.done():
        running_part.cancel()
        sampling.result()
    await running_part


async def _load(client: httpx.AsyncClient, step: LoadStep) -> None:
    """A constant rate until the replicas keep up; then waits for all answers."""
    requests: list[asyncio.Task[int]] = []
    begin = time.monotonic()
    while (now := time.monotonic()) < begin + BUSY_S or not _queue_is_short(step.samples):
        if now > begin + TIMEOUT_S:
            raise UnavailableError(f"the replicas do not keep up with the load: {step.samples[-1]}")
        due = int((now - begin) * LOAD_PER_S) + 1
        for _ in range(due - len(requests)):
            requests.append(asyncio.create_task(_request(client)))
            step.sent += 1
        await asyncio.sleep(0.005)
    step.statuses += await asyncio.gather(*requests)


async def _request(client: httpx.AsyncClient) -> int:
    try:
        return (await client.post("/v2/models/paced/infer", json=REQUEST)).status_code
    except httpx.HTTPError:
        return 0


def _queue_is_short(samples: list[Sample]) -> bool:
    """For the last ten samples."""
    return len(samples) > 10 and all(sample.queue_ms < 10 * TARGET_QUEUE_MS for sample in samples[-10:])


async def _back_to_one(step: LoadStep) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while step.samples[-1].running > 1 or step.samples[-1].wanted > 1:
        if time.monotonic() > deadline:
            raise UnavailableError(f"the replicas are not scaled down: {step.samples[-1]}")
        await asyncio.sleep(1)


async def _sample(client: httpx.AsyncClient, step: LoadStep) -> None:
    """One sample per second until cancelled."""
    before = (0, 0)
    while True:
        status = await asyncio.to_thread(read_status)
        deployment = status["applications"]["serve_app"]["deployments"]["paced"]
        running = sum(replica["state"] == "RUNNING" for replica in deployment["replicas"])
        (row,) = (await client.get("/v2/models/paced/stats")).json()["model_stats"]
        queue = row["inference_stats"]["queue"]
        now = (queue["count"], queue["ns"])
        more = max(0, now[0] - before[0])  # a stopped replica takes its counters with it
        queue_ms = max(0, now[1] - before[1]) / more / 1e6 if more else 0.0
        before = now
        wanted = deployment["target_num_replicas"]
        step.samples.append(Sample(step.elapsed(), step.sent, now[0], queue_ms, wanted, running))
        await asyncio.sleep(1)


def draw(step: LoadStep, path: Path) -> None:
    at = [sample.at for sample in step.samples]
    rates = [0.0] + [(b.sent - a.sent) / (b.at - a.at) for a, b in pairwise(step.samples)]
    with chart(path, 3, 1, figsize=(9, 7), sharex=True) as (figure, (load_axis, queue_axis, replica_axis)):
        load_axis.plot(at, rates, color="tab:blue")
        load_axis.axhline(CAPACITY_PER_S, color="gray", linestyle=":", label="capacity of a replica")
        load_axis.set_ylabel("requests/s")
        queue_axis.plot(at, [max(sample.queue_ms, 0.1) for sample in step.samples], color="tab:red")
        queue_axis.axhline(TARGET_QUEUE_MS, color="gray", linestyle=":", label="target_queue_ms")
        queue_axis.set_yscale("log")
        queue_axis.set_ylabel("queue time, ms")
        for kind, color in (("wanted", "tab:orange"), ("running", "tab:green")):
            counts = [getattr(sample, kind) for sample in step.samples]
            replica_axis.step(at, counts, where="post", color=color, label=kind)
        replica_axis.set_ylabel("replicas")
        replica_axis.set_xlabel("seconds")
        for axis in (load_axis, queue_axis, replica_axis):
            axis.legend(loc="upper right")
        summary = f"{step.sent} requests, {step.failed or 'none'} failed"
        figure.suptitle(f"From nothing to three times a replica's capacity and back: {summary}")
    path.with_suffix(".json").write_text(json.dumps([asdict(sample) for sample in step.samples]))

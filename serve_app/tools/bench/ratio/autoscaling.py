"""A load that steps from nothing to three times what a replica can do, and back, while replicas are watched."""

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
from serve_app.tools.bench.charts import chart
from serve_app.tools.launch.watch import read_status

WORK_S = 0.1  # what a request takes; a replica works at one at a time
CAPACITY_PER_S = 1 / WORK_S
LOAD_PER_S = 3 * CAPACITY_PER_S
TARGET_QUEUE_MS = 20.0
MOST_REPLICAS = 6
LOOK_BACK_S = 10.0
QUIET_S, BUSY_S, PATIENCE_S = 10, 60, 300  # busy at least so long
REQUEST = {"inputs": [{"name": "SECONDS", "datatype": "FP32", "shape": [1, 1], "data": [WORK_S]}]}
DEPLOYMENT: dict[str, Any] = {
    "name": "paced",
    "max_ongoing_requests": 256,
    "ray_actor_options": {"num_cpus": 0.05},
    "autoscaling_config": {
        "min_replicas": 1,
        "max_replicas": MOST_REPLICAS,
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


@dataclass(frozen=True, slots=True)
class Sample:
    """A second of the course; `queue_ms` is Triton's own, over all replicas."""

    at: float
    sent: int
    answered: int
    queue_ms: float
    wanted: int
    running: int


@dataclass(slots=True)
class Course:
    """What was sent, what came back, and what was seen of the deployment meanwhile."""

    began: float = field(default_factory=time.monotonic)
    sent: int = 0
    statuses: list[int] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def elapsed(self) -> float:
        return time.monotonic() - self.began

    @property
    def failed(self) -> int:
        return self.sent - self.statuses.count(200)

    @property
    def asked_after_s(self) -> float:
        """How long after the step the first new replica was asked for."""
        return next((sample.at for sample in self.samples if sample.wanted > 1), PATIENCE_S) - QUIET_S


async def run_course(url: str) -> Course:
    course = Course()
    limits = httpx.Limits(max_connections=2000, max_keepalive_connections=200)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        watching = asyncio.create_task(_watch(client, course))
        await asyncio.sleep(QUIET_S)
        await _unless_it_fails(watching, _load(client, course))
        await _unless_it_fails(watching, _back_to_one(course))
        await asyncio.sleep(5)
        watching.cancel()
    return course


async def _unless_it_fails(watching: asyncio.Task[None], part: Coroutine[Any, Any, None]) -> None:
    """A course that nobody watches says nothing."""
    going = asyncio.ensure_future(part)
    await asyncio.wait({watching, going}, return_when=asyncio.FIRST_COMPLETED)
    if watching.done():
        going.cancel()
        watching.result()
    await going


async def _load(client: httpx.AsyncClient, course: Course) -> None:
    """At a steady rate, whatever the answers do, until replicas keep up; then until the last of them has come."""
    requests: list[asyncio.Task[int]] = []
    begin = time.monotonic()
    while (now := time.monotonic()) < begin + BUSY_S or not _worked_off(course.samples):
        if now > begin + PATIENCE_S:
            raise UnavailableError(f"replicas don't keep up: {course.samples[-1]}")
        due = int((now - begin) * LOAD_PER_S) + 1
        for _ in range(due - len(requests)):
            requests.append(asyncio.create_task(_ask(client)))
            course.sent += 1
        await asyncio.sleep(0.005)
    course.statuses += await asyncio.gather(*requests)


async def _ask(client: httpx.AsyncClient) -> int:
    try:
        return (await client.post("/v2/models/paced/infer", json=REQUEST)).status_code
    except httpx.HTTPError:
        return 0


def _worked_off(samples: list[Sample]) -> bool:
    """The queue that one replica let grow is gone, and stays so."""
    return len(samples) > 10 and all(sample.queue_ms < 10 * TARGET_QUEUE_MS for sample in samples[-10:])


async def _back_to_one(course: Course) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while course.samples[-1].running > 1 or course.samples[-1].wanted > 1:
        if time.monotonic() > deadline:
            raise UnavailableError(f"replicas stay: {course.samples[-1]}")
        await asyncio.sleep(1)


async def _watch(client: httpx.AsyncClient, course: Course) -> None:
    """A sample a second until cancelled."""
    before = (0, 0)
    while True:
        status = await asyncio.to_thread(read_status)
        deployment = status["applications"]["serve_app"]["deployments"]["paced"]
        running = sum(replica["state"] == "RUNNING" for replica in deployment["replicas"])
        (row,) = (await client.get("/v2/models/paced/stats")).json()["model_stats"]
        queue = row["inference_stats"]["queue"]
        now = (queue["count"], queue["ns"])
        more = max(0, now[0] - before[0])  # a replica that went away took its share with it
        queue_ms = max(0, now[1] - before[1]) / more / 1e6 if more else 0.0
        before = now
        wanted = deployment["target_num_replicas"]
        course.samples.append(Sample(course.elapsed(), course.sent, now[0], queue_ms, wanted, running))
        await asyncio.sleep(1)


def draw(course: Course, path: Path) -> None:
    at = [sample.at for sample in course.samples]
    rates = [0.0] + [(b.sent - a.sent) / (b.at - a.at) for a, b in pairwise(course.samples)]
    with chart(path, 3, 1, figsize=(9, 7), sharex=True) as (figure, (load_axis, queue_axis, replica_axis)):
        load_axis.plot(at, rates, color="tab:blue")
        load_axis.axhline(CAPACITY_PER_S, color="gray", linestyle=":", label="what one replica can do")
        load_axis.set_ylabel("requests/s")
        queue_axis.plot(at, [max(sample.queue_ms, 0.1) for sample in course.samples], color="tab:red")
        queue_axis.axhline(TARGET_QUEUE_MS, color="gray", linestyle=":", label="target_queue_ms")
        queue_axis.set_yscale("log")
        queue_axis.set_ylabel("queue time, ms")
        for kind, color in (("wanted", "tab:orange"), ("running", "tab:green")):
            counts = [getattr(sample, kind) for sample in course.samples]
            replica_axis.step(at, counts, where="post", color=color, label=kind)
        replica_axis.set_ylabel("replicas")
        replica_axis.set_xlabel("seconds")
        for axis in (load_axis, queue_axis, replica_axis):
            axis.legend(loc="upper right")
            axis.grid(alpha=0.3)
        told = f"{course.sent} requests, {course.failed or 'none'} failed"
        figure.suptitle(f"From nothing to three times a replica's capacity and back: {told}")
    path.with_suffix(".json").write_text(json.dumps([asdict(sample) for sample in course.samples]))

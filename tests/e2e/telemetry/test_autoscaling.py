"""A load that steps from nothing to three times what a replica can do, and back: replicas follow the queue time."""

import asyncio
import json
import shutil
import time
from dataclasses import dataclass, field
from itertools import pairwise

import httpx
import matplotlib
import pytest
import yaml

from serve_app.launch.watch import read_status
from serve_app.settings import PROJECT_ROOT

pytestmark = pytest.mark.e2e
WORK_S = 0.1  # what a request takes; a replica works at one at a time
CAPACITY_PER_S = 1 / WORK_S
LOAD_PER_S = 3 * CAPACITY_PER_S
TARGET_QUEUE_MS = 20
MOST = 6
QUIET_S, BUSY_S, PATIENCE_S = 10, 60, 300  # busy at least so long
CHART = PROJECT_ROOT / "runs" / "autoscaling.png"
REQUEST = {"inputs": [{"name": "SECONDS", "datatype": "FP32", "shape": [1, 1], "data": [WORK_S]}]}
CONFIG = """
backend: "python"
max_batch_size: 1
input [ { name: "SECONDS" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "ORDER" data_type: TYPE_INT32 dims: [ 1 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching { }
"""
DEPLOYMENT = {
    "name": "paced",
    "max_ongoing_requests": 256,
    "ray_actor_options": {"num_cpus": 0.05},
    "autoscaling_config": {
        "min_replicas": 1,
        "max_replicas": MOST,
        "metrics_interval_s": 2,
        "look_back_period_s": 10,
        "upscale_delay_s": 2,
        "downscale_delay_s": 10,
        "policy": {
            "policy_function": "serve_app.telemetry.autoscaling:QueueTimePolicy",
            "policy_kwargs": {"target_queue_ms": TARGET_QUEUE_MS},
        },
    },
}


@pytest.fixture
def paced(tmp_path, configure, start_service):
    """A deployment whose one model takes its time without needing the processor."""
    path = configure(tmp_path)
    config = yaml.safe_load(path.read_text())
    (application,) = config["applications"]
    repository = tmp_path / "models"
    laboratory = PROJECT_ROOT / "tests" / "triton" / "embedded" / "models" / "slow"
    shutil.copytree(laboratory, repository / "paced")
    (repository / "paced" / "config.pbtxt").write_text(CONFIG)
    application["args"]["triton"].append({"name": "paced", "model_repository": str(repository)})
    application["args"]["baseline"] = None
    kept = [one for one in application["deployments"] if one["name"] != "baseline"]
    application["deployments"] = [*kept, DEPLOYMENT]
    path.write_text(yaml.safe_dump(config))
    with start_service(path, tmp_path / "serve.log").up() as run:
        yield run


@dataclass
class Sample:
    at: float
    sent: int
    answered: int
    queue_ms: float
    wanted: int
    running: int


@dataclass
class Course:
    """What was sent, what came back, and what was seen of the deployment meanwhile."""

    began: float = field(default_factory=time.monotonic)
    sent: int = 0
    statuses: list[int] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def elapsed(self):
        return time.monotonic() - self.began


def worked_off(samples):
    """The queue that one replica let grow is gone, and stays so."""
    return len(samples) > 10 and all(sample.queue_ms < 10 * TARGET_QUEUE_MS for sample in samples[-10:])


async def load(client, course):
    """At a steady rate, whatever the answers do, until replicas keep up; then until the last of them has come."""
    requests, begin = [], time.monotonic()
    while (now := time.monotonic()) < begin + BUSY_S or not worked_off(course.samples):
        assert now < begin + PATIENCE_S, f"replicas don't keep up: {course.samples[-1]}"
        due = int((now - begin) * LOAD_PER_S) + 1
        for _ in range(due - len(requests)):
            requests.append(asyncio.create_task(client.post("/v2/models/paced/infer", json=REQUEST)))
            course.sent += 1
        await asyncio.sleep(0.005)
    for answered in asyncio.as_completed(requests):
        course.statuses.append((await answered).status_code)


async def watch(client, course):
    """A sample a second until cancelled; the queue time is Triton's own, over all replicas."""
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


async def run_course(url):
    course = Course()
    limits = httpx.Limits(max_connections=2000, max_keepalive_connections=200)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as client:
        watching = asyncio.create_task(watch(client, course))
        await asyncio.sleep(QUIET_S)
        await load(client, course)
        deadline = time.monotonic() + PATIENCE_S
        while course.samples[-1].running > 1 or course.samples[-1].wanted > 1:
            assert time.monotonic() < deadline, f"still {course.samples[-1]}"
            await asyncio.sleep(1)
        await asyncio.sleep(5)
        watching.cancel()
    return course


def draw(course, path):
    matplotlib.use("Agg")
    from matplotlib import pyplot

    at = [sample.at for sample in course.samples]
    rates = [0.0] + [(b.sent - a.sent) / (b.at - a.at) for a, b in pairwise(course.samples)]
    figure, (load_axis, queue_axis, replica_axis) = pyplot.subplots(3, 1, figsize=(9, 7), sharex=True)
    load_axis.plot(at, rates, color="tab:blue")
    load_axis.axhline(CAPACITY_PER_S, color="gray", linestyle=":", label="what one replica can do")
    load_axis.set_ylabel("requests/s")
    queue_axis.plot(at, [max(sample.queue_ms, 0.1) for sample in course.samples], color="tab:red")
    queue_axis.axhline(TARGET_QUEUE_MS, color="gray", linestyle=":", label="target_queue_ms")
    queue_axis.set_yscale("log")
    queue_axis.set_ylabel("queue time, ms")
    replica_axis.step(
        at, [sample.wanted for sample in course.samples], where="post", color="tab:orange", label="wanted"
    )
    replica_axis.step(
        at, [sample.running for sample in course.samples], where="post", color="tab:green", label="running"
    )
    replica_axis.set_ylabel("replicas")
    replica_axis.set_xlabel("seconds")
    for axis in (load_axis, queue_axis, replica_axis):
        axis.legend(loc="upper right")
        axis.grid(alpha=0.3)
    figure.suptitle(f"From nothing to three times a replica's capacity and back: {course.sent} requests, none failed")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    path.with_suffix(".json").write_text(json.dumps([vars(sample) for sample in course.samples]))


def test_replicas_follow_the_queue_time_from_one_to_many_and_back_and_no_request_fails(paced):
    course = asyncio.run(run_course(paced.url))
    wanted = [sample.wanted for sample in course.samples]
    running = [sample.running for sample in course.samples]
    assert course.sent > BUSY_S * LOAD_PER_S * 0.9
    assert [status for status in course.statuses if status != 200] == []
    assert len(course.statuses) == course.sent
    quiet = [sample.wanted for sample in course.samples if sample.at < QUIET_S]
    assert set(quiet) == {1}
    assert 3 <= max(running) <= MOST
    assert max(wanted) <= MOST
    assert running[0] == running[-1] == wanted[-1] == 1
    assert max(sample.queue_ms for sample in course.samples) > 50 * TARGET_QUEUE_MS, "one replica was not enough"
    draw(course, CHART)

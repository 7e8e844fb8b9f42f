"""Faults under constant load: what fails meanwhile, and how soon all is right again; a table comes at the end."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from serve_app.settings import PROJECT_ROOT
from tests.e2e.service import LABORATORY, language_model, wait_until, write_config
from tests.load import CHATS, RATE, Load

BACK_WITHIN_S = 240
LONG_S, STREAMS = 180, 4
QUIET_S = 5  # of load before a fault, and after the recovery
HEADER = "| fault | requests | failed | allowed | slowest | recovered after |\n|---|---|---|---|---|---|"


@pytest.fixture(scope="module")
def faulty(tmp_path_factory, module_start):
    """Two routers, two replicas for pictures, a language model."""

    def change(config):
        (application,) = config["applications"]
        arguments, deployments = application["args"], application["deployments"]
        arguments["router"]["hosts"] = None
        arguments["baseline"], arguments["llms"] = None, [language_model("demo-llm", 1)]
        router = {"name": "router", "num_replicas": 2, "max_ongoing_requests": 1024}
        vision = {"name": "vision", "num_replicas": 2, "max_ongoing_requests": 256}
        for one, share in ((router, 0.1), (vision, 0.3)):
            one["ray_actor_options"] = {"num_cpus": share}
        counting = {"name": "numbers", "model_repository": str(LABORATORY), "models": ["decoupled"]}
        arguments["triton"].append(counting | {"instances": {"decoupled": STREAMS}})
        numbers = {"name": "numbers", "num_replicas": 1, "ray_actor_options": {"num_cpus": 0.1}}
        deployments[:] = [router, vision, numbers]

    folder = tmp_path_factory.mktemp("faults")
    with module_start(write_config(folder, change), folder / "serve.log").up() as run:
        run.wait_until_ready(r"ready in .*: .*demo-llm")
        yield run


@pytest.fixture(scope="module")
def table():
    """Its rows are printed once all faults are through."""
    rows = []
    yield rows
    text = "\n".join([HEADER, *rows])
    print(f"\n{text}")
    (PROJECT_ROOT / "build").mkdir(exist_ok=True)
    (PROJECT_ROOT / "build" / "faults.md").write_text(text + "\n")


def all_healthy(service):
    """Also through HAProxy."""
    try:
        health = httpx.get(f"{service.url}/health", timeout=5)
    except httpx.HTTPError:
        return False
    return health.is_success and all(service.is_healthy(name) for name in ("router", "vision", "demo-llm"))


def redeploy(service, change):
    """Serve takes the changed configuration, as `serve deploy` gives it."""
    config = yaml.safe_load(service.config.read_text())
    (application,) = config["applications"]
    change({one["name"]: one for one in application["deployments"]} | {"args": application["args"]})
    service.config.write_text(yaml.safe_dump(config))
    environment = psutil.Process(service.serve_run()).environ() | {"RAY_AUTH_MODE": "token"}
    command = [Path(sys.executable).with_name("serve"), "deploy", service.config]
    subprocess.run(command, check=True, timeout=120, env=environment)


def set_replicas(count, deployments):
    deployments["vision"]["num_replicas"] = count


def restart_vision(deployments):
    deployments["vision"]["ray_actor_options"]["num_cpus"] = 0.31


def change_confidence(deployments):
    deployments["args"]["detection"]["confidence"] = 0.3


def kill(pids):
    os.kill(pids[0], signal.SIGKILL)


def stop(pids):
    os.kill(pids[0], signal.SIGSTOP)


def children(pid, part):
    return [child.pid for child in psutil.Process(pid).children(recursive=True) if part in " ".join(child.cmdline())]


def processes_named(service, part):
    found = []
    for pid in service.processes():
        try:
            if part in " ".join(psutil.Process(pid).cmdline()):
                found.append(pid)
        except psutil.Error:
            continue
    return found


FAULTS = {
    "a replica of vision is killed": lambda s: kill(s.replicas("vision")),
    "a Python-backend process is killed": lambda s: kill(children(s.replicas("vision")[0], "yolo_nano_end2end/")),
    "vLLM's engine is killed": lambda s: kill(children(s.replicas("demo-llm")[0], "EngineCore")),
    "a router is killed": lambda s: kill(s.replicas("router")),
    "Serve's controller is killed": lambda s: kill(processes_named(s, "ray::ServeController")),
    "HAProxy is killed": lambda s: kill(processes_named(s, "haproxy -")),
    "a replica of vision is stopped (SIGSTOP)": lambda s: stop(s.replicas("vision")),
    "a replica of vision gets SIGTERM": lambda s: os.kill(s.replicas("vision")[0], signal.SIGTERM),
    "vision is deployed anew": lambda s: redeploy(s, restart_vision),
    "the default confidence is changed": lambda s: redeploy(s, change_confidence),
    "vision goes from 2 replicas to 3": lambda s: redeploy(s, partial(set_replicas, 3)),
    "vision goes from 3 replicas to 1": lambda s: redeploy(s, partial(set_replicas, 1)),
}
# Only a client can repeat what was cut between it and HAProxy; a chat that is refused is followed by the next at once.
RESTARTED = {"the default confidence is changed": {"router", "vision"}}  # and nothing else
ALLOWED = {"a router is killed": RATE + CHATS + 2, "HAProxy is killed": 600}


@pytest.mark.parametrize("fault", FAULTS)
def test_under_load(faulty, table, fault):
    """What may be tried again is answered; what was in flight in what was killed may wait for its successor."""
    wait_until(lambda: all_healthy(faulty), BACK_WITHIN_S, "healthy before the fault")
    before = {name: set(faulty.replicas(name)) for name in ("router", "vision", "demo-llm")}
    with Load(faulty.url).running() as load:
        time.sleep(QUIET_S)
        began = time.monotonic()
        FAULTS[fault](faulty)
        time.sleep(3)  # until it is noticed
        wait_until(lambda: all_healthy(faulty), BACK_WITHIN_S, "healthy after the fault")
        healthy_s = time.monotonic() - began
        time.sleep(QUIET_S)
    slowest_s = max(seconds for _, seconds, _, _ in load.outcomes)
    recovered_s = max(healthy_s, load.disturbed_until(began))
    allowed = ALLOWED.get(fault, 0)
    table.append(
        f"| {fault} | {len(load.outcomes)} | {len(load.failed)} | {allowed} | {slowest_s:.1f} s | {recovered_s:.0f} s |"
    )
    print(f"\n{table[-1]}\n{json.dumps(load.failed[:5])}")
    assert len(load.outcomes) > RATE * QUIET_S, before
    if fault in RESTARTED:
        now = {name: set(faulty.replicas(name)) for name in before}
        assert {name for name in before if not before[name] & now[name]} == RESTARTED[fault]
        assert {name for name in before if before[name] != now[name]} == RESTARTED[fault]
    assert len(load.failed) <= allowed, load.failed[:10]


def set_routers(count, deployments):
    deployments["router"]["num_replicas"] = count


def read_numbers(service, found):
    """A stream of server-sent events, a number a second."""
    document = {"COUNT": [LONG_S, 1.0]}
    with httpx.stream(
        "POST", f"{service.url}/v2/models/decoupled/generate_stream", json=document, timeout=2 * LONG_S
    ) as answer:
        found += [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]


@pytest.mark.timeout(600)
def test_streams_of_minutes_outlive_changes_of_the_routers(faulty):
    """Serve's HAProxy of before a change ends after two minutes, unless it is told to let streams end."""
    wait_until(lambda: all_healthy(faulty), BACK_WITHIN_S, "healthy before")
    found = [[] for _ in range(STREAMS)]  # some through either router
    readers = [threading.Thread(target=read_numbers, args=[faulty, numbers]) for numbers in found]
    for reader in readers:
        reader.start()
    for count in (3, 1, 2):
        time.sleep(5)
        redeploy(faulty, partial(set_routers, count))
        wait_until(lambda: all_healthy(faulty), BACK_WITHIN_S, "the routers have changed")
    for reader in readers:
        reader.join()
    assert [len(numbers) for numbers in found] == [LONG_S] * len(found)
    assert not any("error" in number for numbers in found for number in numbers)

"""Five times what is possible, for a minute: refused at once or answered soon, and good again when it is over."""

import json
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import httpx
import psutil
import pytest

from tests.e2e.service import SHAPES, language_model, wait_until, write_config

PATH = "/predict/nano"
MAX_WAIT_S = 3
TIMES, MINUTE_S = 5, 60
BURST_S = 10
STREAMS, SHARE = 40, 0.6
REFUSED_MS = 150  # at the 99th percentile: alone on the machine runs had 14 to 104, beside other work 284


def load(service, rate, seconds):
    """Status, beginning and end of each request."""
    command = [sys.executable, "-m", "tests.e2e.open_loop", service.url, PATH, SHAPES, str(rate), str(seconds)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    return json.loads(ended.stdout)


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def resident(service):
    """Shared pages count once: a region of Triton's Python backend that grows is mapped again beside its old place."""
    replicas = [psutil.Process(pid) for name in ("router", "vision") for pid in service.replicas(name)]
    processes = [one for replica in replicas for one in (replica, *replica.children(recursive=True))]
    return sum(one.memory_full_info().pss for one in processes)


@pytest.fixture(scope="module")
def single(tmp_path_factory, module_start):
    """Two routers, one replica for pictures, and a language model that gives way to them."""

    def change(config):
        (application,) = config["applications"]
        application["args"] |= {"baseline": None, "llms": [language_model("demo-llm", 1, priority="low")]}
        application["args"]["router"] |= {"hosts": None, "max_wait_s": MAX_WAIT_S}
        router = {"name": "router", "num_replicas": 2, "max_ongoing_requests": 1024}
        application["deployments"][:] = [
            router | {"ray_actor_options": {"num_cpus": 0.1}},
            {"name": "vision", "num_replicas": 1, "max_ongoing_requests": 256, "ray_actor_options": {"num_cpus": 0.5}},
        ]

    folder = tmp_path_factory.mktemp("overload")
    with module_start(write_config(folder, change), folder / "serve.log").up() as run:
        run.wait_until_ready(r"ready in .*: .*demo-llm")
        yield run


def rate_of(service, seconds):
    """Pictures a second, at more than is possible."""
    answered = [end for status, _, end in load(service, 60, seconds) if status == 200]
    return len(answered) / (max(answered) - min(answered))


@contextmanager
def streams(service, count):
    """So many conversations at a time, each followed by the next; yields the list that counts their events."""
    ended, events = threading.Event(), []
    question = {"model": "demo-llm", "prompt": "a", "max_tokens": 400, "stream": True, "ignore_eos": True}

    def talk():
        with httpx.Client(timeout=120) as client:
            while not ended.is_set():
                with client.stream("POST", f"{service.url}/v1/completions", json=question) as answer:
                    for line in answer.iter_lines():
                        if line.startswith("data: {"):
                            events.append(1)
                        if ended.is_set():
                            break

    threads = [threading.Thread(target=talk) for _ in range(count)]
    for one in threads:
        one.start()
    try:
        yield events
    finally:
        ended.set()
        for one in threads:
            one.join()


def test_forty_conversations_leave_pictures_their_share(single):
    """The model has the priority `low`: it gets less of the processors than pictures, and still some."""
    alone = rate_of(single, 10)
    with streams(single, STREAMS) as events:
        time.sleep(5)
        before, began = len(events), time.monotonic()
        beside = rate_of(single, 10)
        events_s = (len(events) - before) / (time.monotonic() - began)
    streamed = f"{STREAMS} streams of {events_s:.0f} events a second"
    print(f"\n{alone:.1f} pictures a second alone, {beside:.1f} beside {streamed}")
    assert events_s > 1
    assert beside > SHARE * alone


@pytest.mark.timeout(600)
def test_five_times_what_is_possible(single):
    capacity = rate_of(single, 10)
    load(single, TIMES * capacity, BURST_S)  # a region of the Python backend keeps the size that a full queue needs
    time.sleep(3)
    before = resident(single)
    outcomes = load(single, TIMES * capacity, MINUTE_S)
    ended = time.monotonic()
    with httpx.Client(base_url=single.url, timeout=60) as client:
        while True:
            began = time.monotonic()
            answer = client.post(PATH, content=SHAPES.read_bytes())
            if answer.status_code == 200 and answer.json()["num_detections"] == 6 and time.monotonic() - began < 1:
                break
        good_again_s = time.monotonic() - ended
    refused = [(end - begin) * 1e3 for status, begin, end in outcomes if status == 503]
    taken = [end - begin for status, begin, end in outcomes if status == 200]
    print(
        f"\ncapacity {capacity:.1f}/s, {len(outcomes)} requests at {TIMES * capacity:.0f}/s: {len(taken)} answered, "
        f"p99 {percentile(taken, 0.99):.1f} s; {len(refused)} refused, p50 {percentile(refused, 0.5):.0f} ms, p95 "
        f"{percentile(refused, 0.95):.0f} ms, p99 {percentile(refused, 0.99):.0f} ms; good again after "
        f"{good_again_s:.1f} s"
    )
    assert len(refused) + len(taken) == len(outcomes)
    assert len(taken) > 0.8 * capacity * MINUTE_S
    assert percentile(taken, 0.99) < 3 * MAX_WAIT_S  # by the rate of late, which is not that of the next seconds
    assert good_again_s < 5
    assert percentile(refused, 0.99) < REFUSED_MS
    held = resident(single)
    wait_until(lambda: resident(single) < 1.1 * before, 60, f"{held >> 20} MiB are {before >> 20} MiB again")

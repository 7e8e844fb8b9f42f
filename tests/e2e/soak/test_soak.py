"""Hours of use in minutes: what each replica holds levels off under requests, loads and clients that leave."""

import json
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import matplotlib.pyplot as plt
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton

from serve_app.settings import PROJECT_ROOT
from tests.e2e.service import SHAPES

REQUESTS, LOADS, ABORTED = (int(os.environ.get(f"SOAK_{name}", most)) for name, most in
                            (("REQUESTS", 50_000), ("LOADS", 1_000), ("ABORTED", 5_000)))  # fmt: skip
DEPLOYMENTS = ("router", "vision", "laboratory", "demo-llm", "baseline")
SAMPLE_S, LEAST_SAMPLES = 5, 20
CLIENTS = 8
GROWTH = {"memory": 1.1, "handles": 1.1, "threads": 1.1, "shared memory": 1.1}
SLACK = {"memory": 16, "handles": 8, "threads": 4, "shared memory": 1}
PICTURE = SHAPES.read_bytes()
NUMBERS = {"inputs": [{"name": "IN0", "shape": [4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
CHAT = {"model": "demo-llm", "messages": [{"role": "user", "content": "What is vLLM?"}], "max_tokens": 4}
LONG = CHAT | {"max_tokens": 500, "stream": True, "ignore_eos": True}
CHART = PROJECT_ROOT / "build" / "soak.png"


def held(pid):
    """MiB of memory, handles, threads and MiB of shared memory of a process with its children."""
    tree = []
    for one in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # a stub ends with its model
            tree.append((one.memory_full_info().pss, one.num_fds(), one.num_threads()))
    memory, handles, threads = (sum(column) for column in zip(*tree, strict=True))
    shared = sum(one.stat().st_size for one in Path("/dev/shm").glob(f"*_{pid}_*"))
    return {
        "memory": memory / 2**20,  # pages that several map count once
        "handles": handles,
        "threads": threads,
        "shared memory": shared / 2**20,
    }


class Watch(threading.Thread):
    """Samples of every replica, from the beginning of a kind of use to its end."""

    def __init__(self, service):
        super().__init__()
        self._pids = {
            f"{name} {number}": pid for name in DEPLOYMENTS for number, pid in enumerate(service.replicas(name))
        }
        self._ended = threading.Event()
        self.samples = {name: [] for name in self._pids}
        self.at_s = []

    def run(self):
        began = time.monotonic()
        while not self._ended.wait(SAMPLE_S):
            self.at_s.append(time.monotonic() - began)  # a sample waits for busy processes, up to half a minute
            for name, pid in self._pids.items():
                self.samples[name].append(held(pid))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self.join()

    def grown(self):
        """What was more in the last quarter than in the second: the first one fills caches."""
        found = []
        for name, samples in self.samples.items():
            assert len(samples) >= LEAST_SAMPLES, f"{name}: {len(samples)} samples say nothing"
            for what, most in GROWTH.items():
                values = np.array([one[what] for one in samples])
                quarter = len(values) // 4
                early, late = values[quarter : 2 * quarter].mean(), values[-quarter:].mean()
                if late > early * most and late > early + SLACK[what]:
                    found.append(f"{name}: {what} grew from {early:.1f} to {late:.1f}")
        return found


def draw(watches):
    figure, axes = plt.subplots(len(GROWTH), len(watches), figsize=(5 * len(watches), 9), squeeze=False, sharex="col")
    for column, (use, watch) in zip(axes.T, watches.items(), strict=True):
        column[0].set_title(use)
        for axis, what in zip(column, GROWTH, strict=True):
            axis.set_ylabel(what)
            for name, samples in watch.samples.items():
                axis.plot(watch.at_s[: len(samples)], [one[what] for one in samples], label=name)
        column[-1].set_xlabel("s")
    axes[0][0].legend(fontsize=7)
    CHART.parent.mkdir(exist_ok=True)
    figure.savefig(CHART, dpi=80, bbox_inches="tight")


@pytest.fixture(scope="module")
def watches():
    found = {}
    yield found
    draw(found)
    print(f"\n{CHART}")


def each(count, work):
    """`work` with a client of its thread's own, so many times in all, by several threads."""
    numbers = iter(range(count))
    lock = threading.Lock()

    def run():
        with httpx.Client(timeout=120) as client:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                work(client, number)

    with ThreadPoolExecutor(CLIENTS) as pool:
        for one in [pool.submit(run) for _ in range(CLIENTS)]:
            one.result()


def require_level(watch):
    print(json.dumps({name: [samples[len(samples) // 4], samples[-1]] for name, samples in watch.samples.items()}))
    assert watch.grown() == []


@pytest.mark.timeout(7200)
def test_mixed_requests(languages, watches):
    urls, chance = languages.url, random.Random(1)
    kinds = (
        (0.55, lambda client: client.post(f"{urls}/v2/models/identity/infer", json=NUMBERS)),
        (0.15, lambda client: client.post(f"{urls}/predict/nano", content=PICTURE)),
        (0.05, lambda client: client.post(f"{urls}/predict/nano", content=b"no picture")),
        (0.05, lambda client: client.post(f"{urls}/v1/chat/completions", json=CHAT)),
        (0.10, lambda client: client.get(f"{urls}/v2/models/yolo/config")),
        (0.10, lambda client: client.post(f"{urls}/v2/models/none/infer", json=NUMBERS)),
    )
    weights = [weight for weight, _ in kinds]
    statuses = set()

    def one(client, _number):
        (_, ask), = chance.choices(kinds, weights)  # fmt: skip
        statuses.add(ask(client).status_code)

    with Watch(languages) as watch:
        each(REQUESTS, one)
    watches["mixed requests"] = watch
    assert statuses <= {200, 404, 415, 503}
    require_level(watch)


@pytest.mark.timeout(7200)
def test_loads_and_unloads(languages, watches):
    with Watch(languages) as watch, httpx.Client(base_url=languages.url, timeout=120) as client:
        for _ in range(LOADS // 2):
            for action in ("load", "unload"):
                assert client.post(f"/v2/repository/models/parameters/{action}").status_code == 200
    client = httpx.Client(base_url=languages.url, timeout=120)
    assert client.post("/v2/repository/models/parameters/load").status_code == 200
    watches["loads and unloads"] = watch
    require_level(watch)


@pytest.mark.timeout(7200)
def test_streams_that_are_left(languages, watches):
    def one(client, number):
        if number % 2:
            with client.stream("POST", f"{languages.url}/v1/chat/completions", json=LONG) as answer:
                next(answer.iter_lines())
        else:
            with triton.InferenceServerClient(languages.grpc_host) as grpc:
                grpc.start_stream(lambda result, error: None)
                count = triton.InferInput("COUNT", [2], "FP32")
                count.set_data_from_numpy(np.array([1000, 0.01], np.float32))
                grpc.async_stream_infer("decoupled", [count])
                grpc.stop_stream(cancel_requests=True)

    with Watch(languages) as watch:
        each(ABORTED, one)
        time.sleep(4 * SAMPLE_S)
    watches["streams that are left"] = watch
    require_level(watch)

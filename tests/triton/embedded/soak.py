"""Many requests in a row, watching memory, handles and threads: python soak.py --requests 1000000."""

from __future__ import annotations

import argparse
import gc
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import serve_app.triton.embedded as triton
from serve_app.triton.embedded import dlpack, inference

MODELS = Path(__file__).parent / "models"
PIPELINE = 16


@dataclass(frozen=True, slots=True)
class Usage:
    """What the process holds."""

    rss_kib: int
    handles: int
    threads: int

    @classmethod
    def now(cls) -> Usage:
        gc.collect()
        status = Path("/proc/self/status").read_text()
        rss = int(status.split("VmRSS:")[1].split()[0])
        return cls(rss, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")))


def send(model: triton.Model, requests: int, size: int) -> None:
    """Pipelined identity requests whose answers are seen through DLPack; some are wrong, some are dropped."""
    sent = np.arange(size, dtype=np.float32)
    held: deque[triton.ResponseIterator] = deque()
    for number in range(requests):
        if number % 100 == 0:
            refuse(model)
        held.append(model.infer(inputs={"IN0": sent}, request_id=str(number), parameters={"number": number}))
        if len(held) == PIPELINE:
            oldest = held.popleft()
            if number % 50:  # the others are left to the collector
                view = np.from_dlpack(next(oldest).outputs["OUT0"])
                assert view[-1] == size - 1
    for iterator in held:
        next(iterator)


def refuse(model: triton.Model) -> None:
    try:
        model.infer(inputs={"WRONG": np.zeros(1, np.float32)})
    except triton.InvalidArgumentError:
        return
    raise AssertionError("a wrong input was accepted")


def wait_until_all_have_ended() -> None:
    """Triton returns a request on a thread of its own, perhaps after its final response."""
    deadline = time.monotonic() + 10
    while inference.count() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert inference.count() == 0


def soak(server: triton.Server, requests: int, rounds: int, size: int = 25_000) -> Iterator[Usage]:
    """The usage after a warm-up and after each round."""
    model = server.load("identity")
    send(model, min(2_000, requests), size)
    yield Usage.now()
    for _ in range(rounds):
        send(model, requests // rounds, size)
        wait_until_all_have_ended()
        assert not dlpack._lent
        yield Usage.now()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    server = triton.Server(model_repository=str(MODELS), model_control_mode=triton.ModelControlMode.EXPLICIT).start()
    began = time.monotonic()
    for usage in soak(server, arguments.requests, arguments.rounds):
        print(f"{time.monotonic() - began:7.1f} s  {usage}  python threads {threading.active_count()}", flush=True)
    server.stop()


if __name__ == "__main__":
    main()

"""Microseconds per pipelined identity request of 100 KB: python pace.py."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import deque
from pathlib import Path

import numpy as np

import serve_app.triton.embedded as triton

MODELS = Path(__file__).parent / "models"


def pace_in_thread(model: triton.Model, sent: np.ndarray, requests: int, depth: int) -> float:
    began, held = time.perf_counter(), deque[triton.ResponseIterator]()
    for _ in range(requests):
        held.append(model.infer(inputs={"IN0": sent}))
        if len(held) == depth:
            next(held.popleft())
    for iterator in held:
        next(iterator)
    return (time.perf_counter() - began) / requests * 1e6


async def pace_in_loop(model: triton.Model, sent: np.ndarray, requests: int, depth: int) -> float:
    async def work(share: int) -> None:
        for _ in range(share):
            async for _response in model.async_infer(inputs={"IN0": sent}):
                pass

    began = time.perf_counter()
    await asyncio.gather(*(work(requests // depth) for _ in range(depth)))
    return (time.perf_counter() - began) / requests * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=8000)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    server = triton.Server(model_repository=str(MODELS), model_control_mode=triton.ModelControlMode.EXPLICIT).start()
    model, sent = server.load("identity"), np.arange(25_000, dtype=np.float32)
    for _ in range(arguments.rounds):
        cpu = time.process_time()
        thread = pace_in_thread(model, sent, arguments.requests, arguments.depth)
        thread_cpu = (time.process_time() - cpu) / arguments.requests * 1e6
        cpu = time.process_time()
        loop = asyncio.run(pace_in_loop(model, sent, arguments.requests, arguments.depth))
        loop_cpu = (time.process_time() - cpu) / arguments.requests * 1e6
        print(f"thread {thread:.0f} us (CPU {thread_cpu:.0f})   loop {loop:.0f} us (CPU {loop_cpu:.0f})", flush=True)
    server.stop()


if __name__ == "__main__":
    main()

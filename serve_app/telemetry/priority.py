"""How processes share processors: routers come first, then engines, then those whose `priority` is lower."""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ray

from serve_app.settings.languages import Priority

logger = logging.getLogger("ray.serve")
# Ray starts its workers, routers among them, with RAY_worker_niceness of configs/ray.env, which is 10.
NICE = {"normal": 14, "low": 19}
THREADS = Path("/proc/self/task")


def give_way(priority: Priority) -> None:
    """Of an engine's replica; a process that is none, such as a test, stays as it is."""
    if ray.is_initialized():
        set_priority(priority)


def let_thread_give_way(priority: Priority = "normal") -> None:
    """The calling thread, and what it starts, as the engine's does beside a router in one process."""
    if ray.is_initialized():
        set_priority(priority, [threading.get_native_id()])


async def in_a_thread_that_gives_way(function: Callable[[], None], priority: Priority = "normal") -> None:
    """The thread ends with it: none can take back its place among the others."""
    with ThreadPoolExecutor(1, initializer=let_thread_give_way, initargs=(priority,)) as thread:
        await asyncio.get_running_loop().run_in_executor(thread, function)


def set_priority(priority: Priority, threads: Iterable[int] | None = None) -> None:
    """For these threads, or every one of this process, and for the threads and processes that they start from now on.

    Where processors are short, an engine gets less than half of what a router gets that wants as much, a `low` one a
    third of what another engine gets, and an `idle` one what all others leave.
    """
    try:
        for thread in threads or [int(one.name) for one in THREADS.iterdir()]:
            if priority == "idle":
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
            else:
                os.setpriority(os.PRIO_PROCESS, thread, max(NICE[priority], os.getpriority(os.PRIO_PROCESS, thread)))
    except OSError as problem:  # a sandbox may forbid it, or a thread has just ended
        logger.warning(f"the priority could not be set to {priority}: {problem}")

"""How a language model's processes share processors with what else runs on the machine."""

import logging
import os
from pathlib import Path
from typing import Literal

logger = logging.getLogger("ray.serve")
Priority = Literal["normal", "low", "idle"]
PRIORITY = "serve_app_priority"  # in the configuration that a replica is given
LOWEST = 19  # Ray starts all of its workers with 15
THREADS = Path("/proc/self/task")


def give_way(priority: Priority) -> None:
    """For every thread of this process, and for the processes that it starts from now on.

    `low` gets about a third of what others on the same processors get, `idle` only what they leave.
    """
    if priority == "normal":
        return
    try:
        for thread in (int(one.name) for one in THREADS.iterdir()):
            if priority == "idle":
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
            else:
                os.setpriority(os.PRIO_PROCESS, thread, LOWEST)
    except OSError as problem:  # a sandbox may forbid it, or a thread has just ended
        logger.warning(f"the priority could not be set to {priority}: {problem}")

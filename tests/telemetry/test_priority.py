"""A language model's threads and processes give way to others as configured."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, subprocess, sys, threading, time
from serve_app.telemetry.priority import set_priority
threading.Thread(target=time.sleep, args=[5], daemon=True).start()
set_priority(sys.argv[1])
threads = {int(one) for one in os.listdir("/proc/self/task")}
print({(os.getpriority(os.PRIO_PROCESS, one), os.sched_getscheduler(one)) for one in threads})
child = "import os; print((os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)))"
print(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout)
"""


WORKER = max(10, os.getpriority(os.PRIO_PROCESS, 0))  # only root may lower it
EXPECTED = [("normal", max(14, WORKER), 0), ("low", 19, 0), ("idle", WORKER, 5)]


@pytest.mark.parametrize(("priority", "nice", "scheduler"), EXPECTED)
def test_threads_and_later_processes_have_the_priority(priority, nice, scheduler):
    command = [sys.executable, "-c", PROGRAM, priority]
    ended = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=True,
        preexec_fn=lambda: os.setpriority(os.PRIO_PROCESS, 0, WORKER),
    )  # fmt: skip
    own, child = ended.stdout.split("\n")[:2]
    assert own == str({(nice, scheduler)})
    assert child == str((nice, scheduler))


IN_A_THREAD = """
import asyncio, os, subprocess, sys, ray
from serve_app.telemetry.priority import in_a_thread_that_gives_way
ray.is_initialized = lambda: True
child = "import os; print(os.getpriority(os.PRIO_PROCESS, 0), flush=True)"
asyncio.run(in_a_thread_that_gives_way(lambda: subprocess.run([sys.executable, "-c", child], check=True)))
print(os.getpriority(os.PRIO_PROCESS, 0))
"""


def test_what_a_thread_that_gives_way_starts_gives_way_too_and_the_process_does_not():
    ended = subprocess.run(
        [sys.executable, "-c", IN_A_THREAD], capture_output=True, text=True, timeout=60, check=True,
        preexec_fn=lambda: os.setpriority(os.PRIO_PROCESS, 0, WORKER),
    )  # fmt: skip
    assert ended.stdout.split() == [str(max(14, WORKER)), str(WORKER)]

"""A language model's threads and processes give way to others as configured."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, subprocess, sys, threading, time
from serve_app.settings.priority import give_way
threading.Thread(target=time.sleep, args=[5], daemon=True).start()
give_way(sys.argv[1])
threads = {int(one) for one in os.listdir("/proc/self/task")}
print({(os.getpriority(os.PRIO_PROCESS, one), os.sched_getscheduler(one)) for one in threads})
child = "import os; print((os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0)))"
print(subprocess.run([sys.executable, "-c", child], capture_output=True, text=True).stdout)
"""


@pytest.mark.parametrize(("priority", "nice", "scheduler"), [("normal", 14, 0), ("low", 19, 0), ("idle", 10, 5)])
def test_threads_and_later_processes_have_the_priority(priority, nice, scheduler):
    command = ["nice", "-n", "10", sys.executable, "-c", PROGRAM, priority]
    own, child = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split("\n")[:2]
    assert own == str({(nice, scheduler)})
    assert child == str((nice, scheduler))

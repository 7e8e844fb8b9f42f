"""The first process of the cluster's namespaces: starts the programs, and starts again what ends."""

import os
import signal
import subprocess
import sys
import time

RESTART_AFTER_S = 1


class Programs:
    """Programs that run as long as this process; each writes a log of its own."""

    def __init__(self, logs):
        self._logs = logs
        self._running = {}  # process and its name, by process id

    def start(self, name, *command):
        with (self._logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._running[process.pid] = name, process

    def watch(self):
        """Reap whatever ends, as the first process of a namespace must, until a signal ends this one."""
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        while True:
            pid, status = os.wait()
            if pid in self._running:
                name, process = self._running.pop(pid)
                print(f"{name} ended with {os.waitstatus_to_exitcode(status)}: starting it again", flush=True)
                time.sleep(RESTART_AFTER_S)
                self.start(name, *process.args)


def run(*command, **options):
    """What a command prints; its own words where it fails."""
    ended = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if ended.returncode:
        sys.exit(f"error: {' '.join(map(str, command))}: {(ended.stderr or ended.stdout).strip()}")
    return ended.stdout


def wait_for(what, holds, timeout_s=120, every_s=0.2):
    ends = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > ends:
            sys.exit(f"error: {what} didn't come within {timeout_s} s")
        time.sleep(every_s)

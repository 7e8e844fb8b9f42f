"""A run of `serve run`, here a small program: what it prints, how signals end it, and what it leaves behind.

Runs start with SIGINT and SIGHUP ignored, as under `nohup make serve &`.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from serve_app.tools.launch.run import RUN_VARIABLE, kill_leftovers, processes_of

RUN = """
import json, os, sys
from serve_app.tools.launch.run import Run
from serve_app.tools.launch.status import parse_progress
statuses, optional, *command = sys.argv[1:]
statuses = [{"applications": one and {"serve_app": one}} for one in json.loads(statuses)]
read = lambda optional: parse_progress(statuses.pop(0) if statuses else {}, optional)
run = Run(command, os.environ, "http://localhost:8000", json.loads(optional), read, poll_s=0.01)
sys.exit(run.wait())
"""
SERVICE = ["sh", "-c", "trap 'exit 0' INT; while :; do sleep 0.02; done"]
RAISED = "Traceback\nserve_app.errors.ModelLoadError: llm can't be loaded: no such folder\n"
REASON = "llm can't be loaded: no such folder"
NOTHING = {}
READY = "ready in N s: http://localhost:8000 (press Ctrl-C to stop)"
LOST = f"error: llm failed to start, everything else is served: {REASON}"


def seen(state="DEPLOYING", message="", **deployments):
    """A status of the application; a deployment's state may come with its message."""
    pairs = {name: found if isinstance(found, tuple) else (found, "") for name, found in deployments.items()}
    described = {name: {"status": status, "message": text} for name, (status, text) in pairs.items()}
    return {"status": state, "message": message, "deployments": described}


NONE_UP = seen(vision="UPDATING", llm="UPDATING")
VISION_UP = seen(vision="HEALTHY", llm="UPDATING")
ALL_UP = seen("RUNNING", vision="HEALTHY", llm="HEALTHY")
LLM_FAILED = seen("DEPLOY_FAILED", vision="HEALTHY", llm=("DEPLOY_FAILED", RAISED))


@pytest.fixture
def start():
    processes = []

    def begin(*statuses, optional=("llm",), command=SERVICE):
        arguments = [sys.executable, "-c", RUN, json.dumps(statuses), json.dumps(optional), *command]
        process = subprocess.Popen(
            ["sh", "-c", 'trap "" INT HUP; exec "$@"', "sh", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        processes.append(process)
        return process

    yield begin
    for process in processes:
        for _ in range(2):  # the second signal kills a service that goes on after the first
            if process.poll() is None:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=10)


def read_lines(process, count):
    return [re.sub(r"\d+\.\d s", "N s", process.stdout.readline().rstrip("\n")) for _ in range(count)]


def finish(process):
    rest, errors = process.communicate(timeout=60)
    return process.returncode, rest.splitlines(), errors.splitlines()


def test_deployments_are_reported_as_soon_as_they_are_ready(start):
    both, one = "waiting for vision, llm", "waiting for llm"
    late = seen(vision="UPDATING", llm="HEALTHY")
    early = seen("DEPLOY_FAILED", vision="UPDATING", llm=("DEPLOY_FAILED", RAISED))
    ill = seen("UNHEALTHY", vision="UNHEALTHY", llm="UPDATING")
    for statuses, lines in (
        ([NOTHING, NONE_UP, NONE_UP, VISION_UP, ALL_UP], [both, READY, one, "ready in N s: llm"]),
        ([ALL_UP], [READY, "ready in N s: llm"]),
        ([NONE_UP, late, ALL_UP], [both, "waiting for vision", READY, "ready in N s: llm"]),
        ([VISION_UP, LLM_FAILED], [READY, one, LOST]),
        ([early, LLM_FAILED], [both, READY, LOST]),
        ([VISION_UP, NOTHING, ALL_UP], [READY, one, "ready in N s: llm"]),  # the dashboard was busy once
        ([VISION_UP, ill, ALL_UP], [READY, one, "ready in N s: llm"]),  # Serve replaces a replica that died
    ):
        process = start(*statuses)
        assert read_lines(process, len(lines)) == lines
        process.send_signal(signal.SIGINT)
        assert finish(process) == (0, [], [])


def test_several_optional_deployments_are_reported_each_and_none_is_mentioned_if_there_is_none(start):
    some = {"vision": "HEALTHY", "a": ("DEPLOY_FAILED", RAISED), "b": "UPDATING", "c": "HEALTHY"}
    process = start(seen(**some), seen(**some | {"b": "HEALTHY"}), optional=["a", "b", "c"])
    assert read_lines(process, 4) == [
        READY,
        "waiting for a, b",
        LOST.replace("llm failed", "a failed"),
        "ready in N s: b, c",
    ]
    process.send_signal(signal.SIGTERM)
    assert finish(process) == (0, [], [])
    process = start(VISION_UP, ALL_UP, optional=[])
    assert read_lines(process, 2) == ["waiting for llm", READY]
    process.send_signal(signal.SIGINT)
    assert finish(process) == (0, [], [])


def test_a_start_that_fails_ends_the_run_with_the_reason(start):
    process = start(NONE_UP, seen(vision=("UPDATING", RAISED), llm="UPDATING"))
    assert finish(process) == (1, ["waiting for vision, llm"], [f"error: vision: {REASON}"])
    process = start(NOTHING, command=["sh", "-c", "exit 7"])
    assert finish(process) == (7, [], ["error: `serve run` exited unexpectedly with status 7"])


def test_sighup_does_not_end_a_run_under_nohup_and_a_second_sigint_kills_the_service(start):
    stubborn = ["sh", "-c", "trap 'echo interrupted' INT; echo started; while :; do sleep 0.02; done"]
    process = start(ALL_UP, command=stubborn)
    output = ""
    while not all(part in output for part in ("ready in", "Ctrl-C to stop)", ": llm", "started")):
        output += process.stdout.readline()  # two processes write, and their lines may mix
        assert process.poll() is None, output
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    line = next(line for line in process.stdout if line.strip())
    assert line == "interrupted\n", "the service ignores the first one"
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 0


def test_only_the_processes_of_a_run_are_found_and_killed():
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    process, other = (
        subprocess.Popen([sys.executable, "-c", stubborn], env=os.environ | {RUN_VARIABLE: run})
        for run in ("run-of-a-test", "another-run")
    )
    try:
        deadline = time.monotonic() + 10
        while processes_of("run-of-a-test") != [process.pid] and time.monotonic() < deadline:
            time.sleep(0.05)  # between fork and exec it still has this process's environment
        assert kill_leftovers("run-of-a-test", timeout_s=0) == 1
        assert (process.wait(30), other.poll()) == (-signal.SIGKILL, None)
        assert kill_leftovers("run-of-a-test", timeout_s=0) == 0
    finally:
        for one in (process, other):
            one.kill()
            one.wait()

"""Tasks in real processes: their events arrive, what they print does not, and their failures are described."""

import os
import signal
import sys
import threading
import time

import psutil
import pytest

from serve_app.tools.bench.gpu_check.worker import run_in_process

TASKS = """
import os, signal, sys, time

def emits(emit, *events):
    print("printed by a library")
    os.system("echo printed by a program")
    for event in events:
        emit(event)

def fails(emit):
    emit("started")
    raise ValueError("the GPU\\n  is gone")

def crashes(emit):
    emit("started")
    print("last words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)

def exits(emit):
    emit("started")
    sys.exit(3)

def crashes_after_its_end(emit):
    import atexit
    atexit.register(os.kill, os.getpid(), signal.SIGSEGV)
    emit("started")

def waits(emit):
    try:
        emit(os.getpid())
        time.sleep(100)
    finally:
        open(__file__ + ".cleaned", "w").close()
"""


@pytest.fixture
def run_task(tmp_path, monkeypatch):
    """Runs a task of TASKS; returns its error, and stores its events in `run_task.events`."""
    (tmp_path / "worker_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    import worker_tasks

    def run(name, *arguments, on_event=None):
        run.events = []
        return run_in_process(
            getattr(worker_tasks, name), *arguments, on_event=on_event or run.events.append,
            log=tmp_path / "logs" / "log", environment={"PYTHONPATH": str(tmp_path)},
        )  # fmt: skip

    yield run
    del sys.modules["worker_tasks"]


def test_events_arrive_in_order_and_output_goes_to_the_log(run_task, tmp_path):
    assert run_task("emits", "one", {"two": 2}) is None
    assert run_task.events == ["one", {"two": 2}]
    printed = (tmp_path / "logs" / "log").read_text()
    assert "printed by a library" in printed
    assert "printed by a program" in printed


def test_a_failure_is_described_and_earlier_events_are_kept(run_task, tmp_path):
    log = tmp_path / "logs" / "log"
    for name, error in (
        ("fails", "the GPU is gone"),
        ("crashes", f"its process was ended by SIGSEGV; {log} ends with: last words"),
        ("exits", f"its process exited with status 3; {log} ends with: nothing"),
        ("crashes_after_its_end", None),
    ):
        assert run_task(name) == error
        assert run_task.events == ["started"]


def test_an_interrupted_check_ends_the_task_which_cleans_up(run_task, tmp_path):
    started = []

    def interrupt(event):
        started.append(event)
        raise KeyboardInterrupt

    cleaned = tmp_path / "worker_tasks.py.cleaned"
    with pytest.raises(KeyboardInterrupt):
        run_task("waits", on_event=interrupt)
    assert not psutil.pid_exists(started[0])
    assert cleaned.exists()


def test_ctrl_c_ends_the_task_also_if_the_parent_ignored_interrupts(run_task, tmp_path):
    """The terminal sends it to this process alone, because the task has a session of its own."""

    def interrupt():
        while not getattr(run_task, "events", None):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_task("waits")
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert not psutil.pid_exists(run_task.events[0])
    assert (tmp_path / "worker_tasks.py.cleaned").exists()

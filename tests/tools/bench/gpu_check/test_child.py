"""Work in real processes: what it tells arrives, what it prints doesn't, and however it ends the reason is known."""

import os
import signal
import threading
import time

import psutil
import pytest

from serve_app.tools.bench.gpu_check.worker import in_child

WORKS = """
import os, signal, sys, time

def tells(tell, *words):
    print("what a library prints")
    os.system("echo what a program prints")
    for word in words:
        tell(word)

def fails(tell):
    tell("begun")
    raise ValueError("the GPU\\n  is gone")

def crashes(tell):
    tell("begun")
    print("last words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)

def exits(tell):
    sys.exit(3)

def crashes_at_the_end(tell):
    import atexit
    atexit.register(os.kill, os.getpid(), signal.SIGSEGV)
    tell("done")

def waits(tell):
    try:
        tell(os.getpid())
        time.sleep(100)
    finally:
        open(__file__ + ".cleaned", "w").close()
"""


@pytest.fixture
def works(tmp_path, monkeypatch):
    """A module that children find too."""
    (tmp_path / "works.py").write_text(WORKS)
    monkeypatch.syspath_prepend(tmp_path)
    import works

    yield works
    del __import__("sys").modules["works"]


@pytest.fixture
def heard():
    return []


@pytest.fixture
def run_work(works, heard, tmp_path):
    def run(name, *arguments, hear=heard.append):
        environment = {"PYTHONPATH": str(tmp_path)}
        return in_child(
            getattr(works, name), *arguments, hear=hear, log=tmp_path / "logs" / "log", environment=environment
        )

    return run


def test_what_is_told_arrives_in_order_and_what_is_printed_goes_to_the_log(run_work, heard, tmp_path):
    assert run_work("tells", "one", {"two": 2}) is None
    assert heard == ["one", {"two": 2}]
    printed = (tmp_path / "logs" / "log").read_text()
    assert "what a library prints" in printed
    assert "what a program prints" in printed


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("fails", "the GPU is gone"),
        ("crashes", "its process was ended by SIGSEGV; {log} ends with: last words"),
    ],
)
def test_how_it_failed_is_told_after_what_came_before(run_work, heard, tmp_path, name, reason):
    assert run_work(name) == reason.format(log=tmp_path / "logs" / "log")
    assert heard == ["begun"]


def test_an_end_without_a_word_is_a_failure(run_work):
    assert run_work("exits").startswith("its process ended with status 3; ")


def test_a_crash_after_all_was_done_is_none(run_work, heard):
    assert run_work("crashes_at_the_end") is None
    assert heard == ["done"]


def test_who_stops_listening_ends_it_with_time_to_clean_up(run_work, tmp_path):
    started = []

    def hear(event):
        started.append(event)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_work("waits", hear=hear)
    assert not psutil.pid_exists(started[0])
    assert (tmp_path / "works.py.cleaned").exists()


def test_ctrl_c_while_it_waits_ends_it(run_work, heard):
    """As the terminal sends it: to this process alone, since the other has a session of its own."""

    def interrupt():
        while not heard:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_work("waits")
    thread.join()
    assert not psutil.pid_exists(heard[0])

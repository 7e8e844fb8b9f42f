"""How servers and their processes end: nothing hangs, crashes or is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

import serve_app.triton.embedded as triton
from tests.triton.embedded.programs import LOAD, STUCK, Run, finish, wait_for_nothing


def test_a_clean_stop_leaves_nothing_not_even_the_guardian(run_script: Run) -> None:
    finish(run_script(LOAD + "next(identity.infer(inputs=ones))\nserver.stop()"))


def test_an_interpreter_that_ends_without_stop_ends_well(run_script: Run) -> None:
    finish(run_script(LOAD + "held = [identity.infer(inputs=ones) for _ in range(100)]"))


def test_an_interpreter_that_ends_on_an_exception_reports_that_only(run_script: Run) -> None:
    process = run_script(LOAD + "raise SystemExit(7)")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 7, output
    assert "Traceback" not in output
    wait_for_nothing(process.pid)


def test_an_interpreter_that_ends_while_a_stub_is_stuck_ends_well(run_script: Run) -> None:
    finish(run_script(STUCK))


def test_views_of_outputs_may_live_until_the_very_end(run_script: Run) -> None:
    code = """
import builtins, torch
outputs = [next(identity.infer(inputs=ones)).outputs["OUT0"] for _ in range(3)]
builtins.kept = [np.from_dlpack(outputs[0]), torch.from_dlpack(outputs[1]), outputs[2], outputs[2].__dlpack__()]
server.stop()
del outputs
"""
    finish(run_script(LOAD + code))


def test_stopping_with_work_in_flight_answers_what_can_be_answered(run_script: Run) -> None:
    # Time enough for the four that end, also on a busy machine.
    code = """
server = start(exit_timeout=10)
ones = {"IN0": np.ones(4, np.float32)}
stuck = server.load("stuck")
responses = stuck.infer(inputs=ones, raise_on_error=False)
decoupled = server.load("decoupled")
slow = server.load("slow")
running = [slow.infer(inputs={"SECONDS": np.array([[0.1]], np.float32)}) for _ in range(4)]
endless = decoupled.infer(inputs={"COUNT": np.array([1e6, 0.01], np.float32)}, raise_on_error=False)
try:
    server.stop()
except triton.TritonError as error:
    say("stop:", error)
for iterator in [*running, endless, responses]:
    *_, last = iterator
    say(last.final, last.error)
"""
    output = finish(run_script(code))
    assert output.count("True None") == 4
    assert output.count("True Stub process") == 2


def test_a_model_whose_stub_died_at_work_does_not_hold_up_the_stop(run_script: Run) -> None:
    code = """
server.stop()
server = start(exit_timeout=60)
failing = server.load("failing")
(response,) = failing.infer(inputs={"HOW": ["die"]}, raise_on_error=False)
say(response.error)
began = time.monotonic()
server.stop()
assert time.monotonic() - began < 25
"""
    assert "is not healthy" in finish(run_script(LOAD + code))


def test_an_interpreter_ends_before_tritons_destructors_where_a_server_could_not_be_deleted(run_script: Run) -> None:
    """The metrics thread of its cache would write into what they free."""
    code = """
import ctypes
from serve_app.triton.embedded import running
libc = ctypes.CDLL(None)
libc.on_exit(ctypes.cast(libc.abort, ctypes.c_void_p), None)  # called after those of libraries that come later
server = start(exit_timeout=1, cache_config={"local": {"size": 1 << 20}})
next(server.load("failing").infer(inputs={"HOW": ["die"]}, raise_on_error=False))
server.stop()
assert running._undeletable
"""
    finish(run_script(code))


def test_a_short_exit_timeout_does_not_cut_the_unloading_short(run_script: Run) -> None:
    """Else the stubs stay as zombies, and the server and its threads stay too."""
    code = """
import queue
for _ in range(2):
    decoupled, answers = server.load("decoupled"), queue.SimpleQueue()
    decoupled.infer(inputs={"COUNT": np.array([50, 0], np.float32)}, response_queue=answers)
    while not answers.get(timeout=30).final:
        pass
    server.stop()
    children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    assert not children, children
    assert not running._undeletable
    server = start(exit_timeout=1)
server.stop()
"""
    finish(run_script("from serve_app.triton.embedded import running\n" + LOAD + code))


def test_a_model_whose_stub_died_works_again_after_unload_and_load(run_script: Run) -> None:
    code = """
for how in ("die", "thanks"):
    failing = server.load("failing")
    (response,) = failing.infer(inputs={"HOW": [how]}, raise_on_error=False)
    server.unload("failing")
say(response.error)
server.stop()
"""
    assert "no: thanks" in finish(run_script(LOAD + code))


def test_a_server_that_is_collected_stops_while_its_outputs_live_on(run_script: Run) -> None:
    code = """
import gc
view = np.from_dlpack(next(identity.infer(inputs=ones)).outputs["OUT0"])
prefix = server._running._cleanup.prefix
del server, identity
gc.collect()
deadline = time.monotonic() + 10
while any(name.startswith(prefix) for name in os.listdir("/dev/shm")) and time.monotonic() < deadline:
    time.sleep(0.05)
assert not any(name.startswith(prefix) for name in os.listdir("/dev/shm"))
assert view.tolist() == [1, 1, 1, 1]
"""
    finish(run_script(LOAD + code))


def test_a_model_outlives_the_name_of_its_server_and_is_refused_after_the_stop(run_script: Run) -> None:
    code = """
model = start().load("identity")
assert model.ready()
assert next(model.infer(inputs=ones)).final
server.stop()
for call in (identity.ready, identity.metadata, lambda: identity.infer(inputs=ones)):
    try:
        call()
    except triton.InvalidArgumentError as error:
        say(error)
"""
    assert finish(run_script(LOAD + code)).count("Server not started") == 3


def test_a_start_that_times_out_stops_the_server(tmp_path: Path) -> None:
    (tmp_path / "bad" / "1").mkdir(parents=True)
    (tmp_path / "bad" / "config.pbtxt").write_text('backend: "no such backend"')
    server = triton.Server(
        model_repository=str(tmp_path),
        model_control_mode=triton.ModelControlMode.EXPLICIT,
        startup_models=["bad"],
        exit_on_error=False,
    )
    for _ in range(2):
        with pytest.raises(triton.UnavailableError, match="Timeout before ready"):
            server.start(wait_until_ready=True, timeout=0.1)
        with pytest.raises(triton.InvalidArgumentError, match="Server not started"):
            server.live()


def test_servers_come_one_after_the_other_and_side_by_side(run_script: Run) -> None:
    code = """
server.stop()
first, second = start(), start()
for one in (first, second):
    one.load("identity")
    one.load("chain")
first.stop()
assert np.from_dlpack(next(second.model("chain").infer(inputs={"IN": ones["IN0"]})).outputs["OUT"]).sum() == 4
second.stop()
third = start()
assert next(third.load("identity").infer(inputs=ones)).final
third.stop()
"""
    finish(run_script(LOAD + code))


def test_a_forked_child_leaves_the_server_of_its_parent_alone(run_script: Run) -> None:
    code = """
child = os.fork()
if not child:
    try:
        identity.infer(inputs=ones)
    except triton.InvalidArgumentError:
        sys.exit(5)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
assert next(identity.infer(inputs=ones)).final
server.stop()
"""
    finish(run_script(LOAD + code))


def test_requests_from_many_threads_while_the_server_stops_end_all(run_script: Run) -> None:
    code = """
import threading
outcomes = []
def work():
    try:
        while True:
            list(identity.infer(inputs=ones))
    except triton.TritonError as error:
        outcomes.append(str(error))
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
time.sleep(0.5)
server.stop()
for thread in threads: thread.join(20)
assert not any(thread.is_alive() for thread in threads)
assert len(outcomes) == 8, outcomes
"""
    finish(run_script(LOAD + code))

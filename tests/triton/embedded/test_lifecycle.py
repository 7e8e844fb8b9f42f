"""How servers and their processes end: nothing hangs, crashes or is left behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import serve_app.triton.embedded as triton
from serve_app.triton.embedded import inference
from serve_app.triton.embedded.iterators import ResponseIterator
from serve_app.triton.embedded.memory import DEFAULT_PLACEMENT

Run = Callable[[str], "subprocess.Popen[str]"]

LOAD = """
server = start(exit_timeout=1)
identity = server.load("identity")
ones = {"IN0": np.ones(4, np.float32)}
"""
STUCK = (
    LOAD
    + """
stuck = server.load("stuck")
responses = stuck.infer(inputs=ones, raise_on_error=False)
time.sleep(0.3)
"""
)
READY = 'say("READY")\ntime.sleep(60)'


def leftovers(pid: int) -> list[str]:
    """Regions and processes that carry the name of a server process; zombies have no command line."""
    mark = re.compile(rf"serve_app_triton_\d+_{pid}_")
    found = [name for name in os.listdir("/dev/shm") if mark.match(name)]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if mark.search(command):
            found.append(command.replace("\0", " "))
    return found


def wait_for_nothing(pid: int, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while leftovers(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert leftovers(pid) == []


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line == "READY\n":
            return
    pytest.fail("".join(lines))


def finish(process: subprocess.Popen[str], timeout_s: float = 60) -> str:
    output, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, output
    wait_for_nothing(process.pid)
    return output


def test_a_killed_process_leaves_no_stub_and_no_shared_memory(run_script: Run) -> None:
    """Whether its stub waits for work or is stuck in a model."""
    cases = [(code, number) for code in (LOAD, STUCK) for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV)]
    processes = [run_script(code + READY) for code, _ in cases]
    for process, (_, number) in zip(processes, cases, strict=True):
        wait_until_ready(process)
        assert any("triton_python_backend_stub" in item for item in leftovers(process.pid))
        process.send_signal(number)
    for process, (_, number) in zip(processes, cases, strict=True):
        assert process.wait(30) == -number
        wait_for_nothing(process.pid)


def test_a_killed_process_that_nobody_reaps_leaves_nothing(run_script: Run, tmp_path: Path) -> None:
    keeper = run_script(
        f"""
import subprocess
child = subprocess.Popen([sys.executable, {str(tmp_path / "child.py")!r}], stdout=subprocess.PIPE)
while child.stdout.readline() != b"READY\\n":
    pass
say(child.pid)
child.kill()
time.sleep(60)
"""
    )
    program = (tmp_path / "program.py").read_text().split("import subprocess")[0]
    (tmp_path / "child.py").write_text(program + STUCK + READY)
    assert keeper.stdout is not None
    pid = int(next(line for line in keeper.stdout if line.strip().isdigit()))
    wait_for_nothing(pid)
    assert "Z (zombie)" in Path(f"/proc/{pid}/status").read_text()
    keeper.kill()
    keeper.communicate()


def test_what_a_killed_guardian_left_is_swept_by_the_next_start(run_script: Run) -> None:
    process = run_script(STUCK + READY)
    wait_until_ready(process)
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        if b"guardian.py" in command.read_bytes() and f"\0{process.pid}\0".encode() in command.read_bytes():
            os.kill(int(command.parent.name), signal.SIGKILL)
    process.kill()
    process.wait()  # not for its output, which the stub that is left holds open
    time.sleep(1)
    assert leftovers(process.pid)
    finish(run_script("start().stop()"))
    wait_for_nothing(process.pid)


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


def test_an_interpreter_ends_well_after_a_server_that_could_not_be_deleted(
    run_script: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MALLOC_PERTURB_", "165")  # what is freed is overwritten, so using it crashes
    code = """
next(server.load("failing").infer(inputs={"HOW": ["die"]}, raise_on_error=False))
server.stop()
assert running._undeletable
"""
    finish(run_script("from serve_app.triton.embedded import running\n" + LOAD + code))


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


def held_inference() -> tuple[inference.InferenceGroup, inference.Inference, ResponseIterator]:
    group, iterator = inference.InferenceGroup(), ResponseIterator(None, raise_on_error=True)
    held = inference.Inference(group, 0, "r1", [], DEFAULT_PLACEMENT, iterator._deliver, lambda name, version: None)
    group.members[held.number] = held
    return group, held, iterator


STOPPED = triton.UnavailableError("Server stopped before the request was answered")


def test_a_request_that_will_never_be_answered_ends_with_an_error() -> None:
    group, _, iterator = held_inference()
    group.end(STOPPED)
    with pytest.raises(triton.UnavailableError, match="Server stopped before the request was answered"):
        next(iterator)
    assert list(iterator) == []


def test_a_stop_and_an_answer_at_once_give_one_final_response() -> None:
    """In every order: whichever comes second finds the inference answered or forgotten, and harms nothing."""
    for first_is_answer in (True, False):
        group, held, iterator = held_inference()
        answer = triton.InferenceResponse(None, "r1", final=True)
        steps = [lambda: held.answer(answer), lambda: group.end(STOPPED)]  # noqa: B023 - called in this turn
        for step in steps if first_is_answer else reversed(steps):
            step()
        assert iterator._queue.get_nowait().error is (None if first_is_answer else STOPPED)
        assert iterator._queue.empty()
    group, held, iterator = held_inference()
    others = [held, held_inference()[1]]
    group.members[others[1].number] = others[1]
    held.forget()
    group.members[held.number] = held  # as a stop sees it that has listed its inferences before
    group.end(STOPPED)
    assert held.read(1, True) is None
    assert [one.final for one in others] == [True, True]


def test_a_released_request_is_not_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    _, held, _ = held_inference()
    monkeypatch.setattr(inference, "api", lambda: pytest.fail("the request was used after its release"))
    held.released = True
    held.cancel()


def test_importing_loads_no_library_and_touches_no_environment() -> None:
    code = """
import os
before = dict(os.environ)
import serve_app.triton.embedded
assert dict(os.environ) == before
assert "nvidia_pytriton" not in open("/proc/self/maps").read()
assert "pytriton" not in __import__("sys").modules
"""
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(root)})

"""What a server process leaves behind when it is killed: nothing, whatever its stubs do."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.triton.embedded.programs import (
    LOAD,
    READY,
    STUCK,
    Run,
    commands,
    finish,
    leftovers,
    wait_for_nothing,
    wait_until_ready,
)


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
    for pid, command in commands():
        if "guardian.py" in command and f"\0{process.pid}\0" in command:
            os.kill(pid, signal.SIGKILL)
    process.kill()
    process.wait()  # not for its output, which the stub that is left holds open
    assert leftovers(process.pid)  # at once: any other server that starts on this machine sweeps them too
    finish(run_script("start().stop()"))
    wait_for_nothing(process.pid)

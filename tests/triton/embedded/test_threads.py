"""Python's state of Triton's threads: kept while they run, freed after, and never in the way of a fork."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import numpy as np

import serve_app.triton.embedded as triton
from serve_app.triton.embedded import threads

SENT = np.arange(6, dtype=np.float32)


def infer(model: triton.Model) -> None:
    (response,) = model.infer(inputs={"IN0": SENT})
    assert np.array_equal(np.asarray(response.outputs["OUT0"]), SENT)


def test_a_thread_has_one_state_for_all_its_callbacks(model: Callable[[str], triton.Model]) -> None:
    infer(model("identity"))
    kept = dict(threads._states)
    assert kept
    for _ in range(200):
        infer(model("identity"))
    assert threads._states == kept


def test_states_of_threads_that_ended_are_freed(server: triton.Server) -> None:
    counts = []
    for _ in range(6):
        infer(server.load("identity"))
        server.unload("identity", wait_until_unloaded=True)
        counts.append(len(threads._states))
    assert counts[-1] <= counts[0] + 1, "each load has threads of its own, and the last ones may still end"


def test_a_forked_child_and_its_parent_go_on(run_script: Callable[[str], subprocess.Popen[str]]) -> None:
    program = run_script(
        """
import os
from serve_app.triton.embedded import threads
server = triton.Server(model_repository=MODELS, model_control_mode=triton.ModelControlMode.EXPLICIT).start()
model = server.load("identity")
next(model.infer(inputs={"IN0": np.zeros(3, np.float32)}))
assert threads._states
child = os.fork()
if not child:
    assert not threads._states
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
next(model.infer(inputs={"IN0": np.zeros(3, np.float32)}))
server.stop()
print("done")
"""
    )
    assert program.communicate(timeout=60)[0].strip().endswith("done")
    assert program.returncode == 0

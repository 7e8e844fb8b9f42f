"""What `scripts/serve` tells of deployments that may come later than the rest, or fail without it.

Ray is faked: a child that does nothing, and a dashboard that says what a test wants, one poll after the other.
"""

import signal

import pytest

from serve_app.settings import Settings
from serve_app.tools.launch import command
from serve_app.tools.launch.command import Run, alone_of
from serve_app.tools.launch.watch import Progress, interpret

ALONE = frozenset({"demo-llm"})
RAISED = "Traceback\nserve_app.errors.ModelLoadError: demo-llm can't be loaded: no such folder\n"
REASON = "demo-llm can't be loaded: no such folder"
FAILED = "Failed to update the deployments ['demo-llm']."
UP = {"vision": ("HEALTHY", ""), "router": ("HEALTHY", "")}
COMING = UP | {"demo-llm": ("UPDATING", "")}
ALL_UP = UP | {"demo-llm": ("HEALTHY", "")}


def application(state="DEPLOYING", message="", deployments=None):
    described = {name: {"status": status, "message": text} for name, (status, text) in (deployments or {}).items()}
    return {"status": state, "message": message, "deployments": described}


def status(state="DEPLOYING", message="", deployments=None, **others):
    return {"applications": {"serve_app": application(state, message, deployments)} | others}


def read(*arguments, alone=ALONE, **others):
    return interpret(status(*arguments, **others), alone)


def test_language_models_are_alone_where_anything_else_is_served():
    models = ({"name": "a"}, {"name": "b"})
    assert alone_of(Settings(llms=models)) == {"a", "b"}
    assert alone_of(Settings(llms=models, baseline=None)) == {"a", "b"}
    assert alone_of(Settings(llms=models, triton=())) == {"a", "b"}
    assert alone_of(Settings(llms=models, triton=(), baseline=None)) == frozenset()
    assert alone_of(Settings()) == frozenset()


def test_the_playground_is_alone_whatever_else_is_served():
    models = ({"name": "a"},)
    assert alone_of(Settings(playground={})) == {"playground"}
    assert alone_of(Settings(playground={}, llms=models)) == {"playground", "a"}
    assert alone_of(Settings(playground={}, llms=models, triton=(), baseline=None)) == {"playground"}


@pytest.mark.parametrize("state", ["UPDATING", "UPSCALING", "DEPLOY_FAILED"])
def test_up_means_that_all_is_that_is_not_alone(state):
    assert read("DEPLOYING", "", UP | {"demo-llm": (state, "")}).up
    assert not read("DEPLOYING", "", ALL_UP | {"vision": ("UPDATING", "")}).up
    assert not interpret(status("DEPLOYING", "", UP | {"demo-llm": (state, "")})).up


def test_alone_is_not_up():
    assert not read("RUNNING", "", {"demo-llm": ("HEALTHY", "")}).up
    assert not read("DEPLOYING", "", {}).up


@pytest.mark.parametrize("state", ["UPSCALING", "DOWNSCALING"])
def test_a_deployment_that_gets_more_replicas_is_up(state):
    assert read("RUNNING", "", ALL_UP | {"router": (state, "")}).up


@pytest.mark.parametrize("state", ["NOT_STARTED", "DEPLOYING"])
def test_an_application_without_deployments_is_still_to_come(state):
    assert not read("RUNNING", "", ALL_UP, other=application(state)).up


@pytest.mark.parametrize(("message", "reason"), [(RAISED, REASON), ("Traceback\nOSError: x\n\n", "OSError: x")])
def test_a_failure_of_one_that_is_alone_has_its_reason_and_is_no_failure_of_all(message, reason):
    progress = read("DEPLOY_FAILED", FAILED, UP | {"demo-llm": ("DEPLOY_FAILED", message)})
    assert (progress.up, progress.failure, progress.failed_alone) == (True, None, {"demo-llm": reason})


def test_one_that_is_alone_may_try_again():
    progress = read("DEPLOYING", "", UP | {"demo-llm": ("UPDATING", RAISED)})
    assert (progress.up, progress.failure, progress.failed_alone) == (True, None, {})


def test_without_others_its_failure_is_final():
    progress = interpret(status("DEPLOYING", "", {"router": ("HEALTHY", ""), "demo-llm": ("UPDATING", RAISED)}))
    assert progress.failure == f"demo-llm: {REASON}"


@pytest.mark.parametrize("first", ["vision", "demo-llm"])
def test_what_others_raise_is_final_whatever_became_of_the_one_alone(first):
    failed = {"vision": ("UPDATING", RAISED.replace("demo-llm", "yolo")), "demo-llm": ("DEPLOY_FAILED", RAISED)}
    progress = read("DEPLOY_FAILED", FAILED, {first: failed[first]} | failed)
    assert progress.failure == "vision: yolo can't be loaded: no such folder"


def test_an_application_that_can_not_be_deployed_is_final():
    assert read("DEPLOY_FAILED", "KeyError: 'x'").failure == "KeyError: 'x'"
    assert read("DEPLOY_FAILED", "", ALL_UP | {"vision": ("DEPLOY_FAILED", "")}).failure is not None


@pytest.mark.parametrize("alone_first", [True, False])
def test_others_fail_beside_one_that_is_alone(alone_first):
    failed = {"demo-llm": ("DEPLOY_FAILED", RAISED), "vision": ("DEPLOY_FAILED", "Traceback\nOSError: no room\n")}
    message = "Failed to update the deployments ['vision', 'demo-llm']."
    order = sorted(failed, reverse=not alone_first)
    assert read("DEPLOY_FAILED", message, {name: failed[name] for name in order}).failure is not None


def test_another_application_fails_beside_one_that_is_alone():
    serve_app = UP | {"demo-llm": ("DEPLOY_FAILED", RAISED)}
    other = application("DEPLOY_FAILED", "KeyError: 'x'")
    assert read("DEPLOY_FAILED", FAILED, serve_app, other=other).failure == "KeyError: 'x'"


def test_one_that_is_alone_and_unhealthy_is_no_failure_of_all():
    message = "The deployments ['demo-llm'] are UNHEALTHY."
    assert read("UNHEALTHY", message, UP | {"demo-llm": ("UNHEALTHY", RAISED)}).failure is None


class Child:
    """`serve run`: ends when it is asked to."""

    signals = ()

    def poll(self):
        return None

    def wait(self):
        if not self.signals:
            self.interrupt(signal.SIGINT, None)  # somebody presses Ctrl-C
        return 0

    def send_signal(self, number):
        self.signals += (number,)

    def kill(self):
        raise AssertionError


@pytest.fixture
def tell(monkeypatch, capsys):
    """What a run prints while the dashboard says these things, and its exit status."""

    def over(*progress, alone=ALONE):
        child, said = Child(), list(progress)

        def handle(_number, handler):
            child.interrupt = handler

        def read_progress(asked):
            assert asked == alone
            return said.pop(0)

        monkeypatch.setattr(command.subprocess, "Popen", lambda *_, **__: child)
        monkeypatch.setattr(command.signal, "signal", handle)
        monkeypatch.setattr(command, "read_progress", read_progress)
        monkeypatch.setattr(command, "end_leftovers", lambda _name: 0)
        monkeypatch.setattr(command, "POLL_S", 0)
        monkeypatch.setattr(Run, "_elapsed", lambda _run: "9.0 s")
        code = Run("serve.yaml", {}, {"http_options.port": 8000}, alone).until_end()
        printed = capsys.readouterr()
        assert child.signals == (signal.SIGINT,)
        return printed.out.splitlines(), printed.err.splitlines(), code, len(said)

    return over


READY = "ready in 9.0 s: http://localhost:8000 (Ctrl-C ends it)"
READY_TOO = "ready in 9.0 s: demo-llm"
LOST = f"error: demo-llm is not served, all else is: {REASON}"


def seen(**states):
    """What the dashboard says where `vision` and `demo-llm` are in these states."""
    return read("DEPLOYING", "", {name.replace("_", "-"): (state, "") for name, state in states.items()})


NOTHING = seen(vision="UPDATING", demo_llm="UPDATING")
PICTURES = seen(vision="HEALTHY", demo_llm="UPDATING")
ALL = seen(vision="HEALTHY", demo_llm="HEALTHY")
GONE = read("DEPLOY_FAILED", FAILED, {"vision": ("HEALTHY", ""), "demo-llm": ("DEPLOY_FAILED", RAISED)})
EARLY = read("DEPLOY_FAILED", FAILED, {"vision": ("UPDATING", ""), "demo-llm": ("DEPLOY_FAILED", RAISED)})
WAITS, WAITS_FOR_ONE = "waiting for vision, demo-llm", "waiting for demo-llm"


@pytest.mark.parametrize(
    ("progress", "lines"),
    [
        ([Progress(), NOTHING, NOTHING, PICTURES, PICTURES, ALL], [WAITS, READY, WAITS_FOR_ONE, READY_TOO]),
        ([ALL], [READY, READY_TOO]),
        ([NOTHING, seen(vision="UPDATING", demo_llm="HEALTHY"), ALL], [WAITS, "waiting for vision", READY, READY_TOO]),
        ([PICTURES, GONE], [READY, WAITS_FOR_ONE, LOST]),
        ([GONE], [READY, LOST]),
        ([EARLY, GONE], [WAITS, READY, LOST]),
    ],
)
def test_what_can_be_used_is_told_as_soon_as_it_can(tell, progress, lines):
    assert tell(*progress) == (lines, [], 0, 0)


def test_of_two_models_each_is_told_of(tell):
    alone = frozenset({"a", "b", "c"})
    states = {"vision": ("HEALTHY", ""), "a": ("DEPLOY_FAILED", RAISED), "b": ("UPDATING", ""), "c": ("HEALTHY", "")}
    said = [read("DEPLOYING", "", states | late, alone=alone) for late in ({}, {"b": ("HEALTHY", "")})]
    lost = f"error: a is not served, all else is: {REASON}"
    assert tell(*said, alone=alone) == ([READY, "waiting for a, b", lost, "ready in 9.0 s: b, c"], [], 0, 0)


def test_without_any_that_is_alone_one_line_tells_all(tell):
    said = [interpret(status("DEPLOYING", "", COMING)), interpret(status("RUNNING", "", ALL_UP))]
    assert tell(*said, alone=frozenset()) == ([WAITS_FOR_ONE, READY], [], 0, 0)


def test_a_failure_of_the_others_ends_the_run(tell):
    failed = read("DEPLOYING", "", {"vision": ("UPDATING", RAISED), "demo-llm": ("UPDATING", "")})
    assert tell(NOTHING, failed) == ([WAITS], [f"error: vision: {REASON}"], 1, 0)


def test_a_dashboard_that_is_too_busy_once_makes_nothing_ready(tell):
    assert tell(PICTURES, Progress(), ALL) == ([READY, WAITS_FOR_ONE, READY_TOO], [], 0, 0)


def test_what_is_served_already_is_not_ended_by_a_replica_that_dies(tell):
    ill = read("UNHEALTHY", "The deployments ['vision'] are UNHEALTHY.", COMING | {"vision": ("UNHEALTHY", "")})
    lines, errors, code, _ = tell(PICTURES, ill, ALL)
    assert (errors, code, lines[-1]) == ([], 0, READY_TOO)

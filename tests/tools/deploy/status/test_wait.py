import pytest

from serve_app.errors import ForbiddenError, UnavailableError
from serve_app.tools.deploy.api.target import Target
from serve_app.tools.deploy.status.model import (
    Address,
    Application,
    Cluster,
    Condition,
    Deployment,
    Event,
    Pod,
    ServiceStatus,
)
from serve_app.tools.deploy.status.problems import Problem
from serve_app.tools.deploy.status.report import changes, report
from serve_app.tools.deploy.status.screen import PlainScreen
from serve_app.tools.deploy.status.wait import Pace, show_failure, wait, watch

TARGET = Target("serve-app", "there")
EMPTY = ServiceStatus(TARGET, exists=True)
STARTING = ServiceStatus(TARGET, exists=True, generation=1, observed_generation=1)
FAILED = ServiceStatus(
    TARGET,
    exists=True,
    generation=1,
    observed_generation=0,
    conditions=(Condition("Ready", "False", "ValidationFailed", "no such field"),),
)
SERVING = ServiceStatus(
    TARGET,
    exists=True,
    generation=1,
    observed_generation=1,
    endpoints=2,
    conditions=(Condition("Ready", "True", "NonZeroServeEndpoints"),),
    clusters=(Cluster("serve-app-abcde", "active", (Application("a", "RUNNING", "", (Deployment("d", "HEALTHY"),)),)),),
)
UNAVAILABLE = UnavailableError("no answer")


class Clock:
    """Time that only passes by sleeping."""

    def __init__(self):
        self.time = 0.0

    def sleep(self, seconds):
        self.time += seconds

    def now(self):
        return self.time


def waited(*steps, timeout_s=10.0, settle_s=0.0):
    """The result of a wait that reads these statuses in turn, and the last one from then on."""
    remaining, clock = list(steps), Clock()

    def read():
        step = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        if isinstance(step, Exception):
            raise step
        return step

    pace = Pace(timeout_s, settle_s=settle_s)
    return wait(read, lambda seen: seen.up_to_date, PlainScreen(), pace, sleep=clock.sleep, now=clock.now)


def texts(lines):
    return [line.text for line in lines]


def test_a_wait_ends_once_the_state_is_reached(capsys):
    assert waited(STARTING, SERVING).reached
    assert "condition Ready: True (NonZeroServeEndpoints)" in capsys.readouterr().out


def test_the_state_must_hold_without_a_break():
    for interruption in (STARTING, UNAVAILABLE):
        assert not waited(SERVING, SERVING, STARTING, settle_s=6).reached
        assert not waited(SERVING, SERVING, interruption, SERVING, SERVING, STARTING, settle_s=6).reached
        assert waited(SERVING, SERVING, interruption, SERVING, settle_s=6).reached
    late = [STARTING] * 4 + [SERVING]
    assert waited(*late, settle_s=6).reached, "the timeout doesn't cut the time that it must hold"
    assert not waited(*late, SERVING, STARTING, settle_s=6).reached


def test_a_timeout_shows_the_status(capsys):
    result = waited(STARTING)
    assert (result.reached, result.permanent) == (False, False)
    show_failure(result, PlainScreen(), Pace(10), "there/serve-app isn't serving")
    out = capsys.readouterr().out
    assert "there/serve-app isn't serving: timed out after 10 s\nRayService there/serve-app: not serving" in out


def test_a_permanent_problem_ends_a_wait_only_if_it_lasts(capsys):
    result = waited(FAILED, timeout_s=1e9)
    assert (result.reached, result.permanent) == (False, True)
    printed = capsys.readouterr().out
    assert printed.count("waiting: RayService serve-app: KubeRay rejects it: no such field") == 1
    assert waited(FAILED, STARTING, FAILED, SERVING).reached


def test_a_wait_retries_while_the_api_is_unavailable(capsys):
    assert waited(UNAVAILABLE, UNAVAILABLE, SERVING).reached
    assert capsys.readouterr().out.count("no answer; retrying") == 1
    show_failure(waited(UNAVAILABLE), PlainScreen(), Pace(10), "it")
    assert "the cluster couldn't be read" in capsys.readouterr().out
    with pytest.raises(ForbiddenError):
        waited(STARTING, ForbiddenError("no"))


def test_a_watch_prints_changes_until_interrupted(capsys):
    steps = [STARTING, FAILED, FAILED, UNAVAILABLE, SERVING, KeyboardInterrupt()]

    def read():
        step = steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step

    with pytest.raises(KeyboardInterrupt):
        watch(read, PlainScreen(), every_s=0.001)
    printed = capsys.readouterr().out
    assert printed.count("waiting: RayService serve-app: KubeRay rejects it") == 1
    assert "no answer; retrying\ncondition Ready: True" in printed


def test_only_changes_are_printed():
    pod = Pod("p", "vision", "serve-app-abcde")
    first = ServiceStatus(TARGET, exists=True, pods=(pod,), events=(Event("Pod/p", "Pulling", "image v"),))
    pending = "pods of vision in serve-app-abcde: 0 of 1 ready (Pending)"
    assert texts(changes(EMPTY, first)) == [pending, "event Pulling Pod/p: image v"]
    assert changes(first, first) == []
    assert texts(changes(first, EMPTY)) == ["pods of vision in serve-app-abcde: gone"]


def test_only_warnings_about_existing_pods_are_printed_at_first():
    events = (
        Event("Pod/p", "Pulling", "image v"),
        Event("Pod/p", "Failed", "no such image", warning=True),
        Event("Pod/gone", "Failed", "long ago", warning=True),
    )
    seen = ServiceStatus(TARGET, exists=True, pods=(Pod("p", "vision"),), events=events)
    assert texts(changes(None, seen))[1:] == ["event Failed Pod/p: no such image"]


def test_a_service_is_serving_during_an_upgrade():
    """KubeRay reports no applications of the active cluster then."""
    upgrading = (Condition("Ready", "True"), Condition("UpgradeInProgress", "True"))
    clusters = (Cluster("serve-app-aaaaa", "active"), Cluster("serve-app-bbbbb", "pending"))
    seen = ServiceStatus(TARGET, True, False, 2, 2, 1, upgrading, clusters)
    assert (seen.serving, seen.up_to_date) == (True, False)
    assert report(seen)[0].text == "RayService there/serve-app: serving, 1 endpoint, upgrading"


def test_a_report_begins_with_the_state_the_problems_and_the_addresses():
    assert report(SERVING)[0].text == "RayService there/serve-app: serving, 2 endpoints"
    assert report(ServiceStatus(TARGET))[0].text == "RayService there/serve-app: not found"
    creating = ServiceStatus(TARGET, exists=True, addresses=(Address("front", "serve", "", "LoadBalancer"),))
    assert texts(report(creating, (Problem("x", "is so", "do y"),))) == [
        "RayService there/serve-app: not serving, 0 endpoints",
        "problems",
        "  x: is so; do y",
        "addresses",
        "  front serve: pending: AWS is creating the load balancer",
    ]

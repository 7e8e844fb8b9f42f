import pytest

from serve_app.errors import ForbiddenError, UnavailableError
from serve_app.tools.deploy.api.target import Target
from serve_app.tools.deploy.looking.explaining import Reason
from serve_app.tools.deploy.looking.observation import (
    Address,
    Application,
    Cluster,
    Condition,
    Deployment,
    Happening,
    Observation,
    Pod,
)
from serve_app.tools.deploy.looking.screen import PlainScreen
from serve_app.tools.deploy.looking.telling import changes, report
from serve_app.tools.deploy.looking.waiting import Pace, tell, wait

TARGET = Target("serve-app", "there")
EMPTY = Observation(TARGET, exists=True)
STARTING = Observation(TARGET, exists=True, generation=1, seen_generation=1)
FAILED = Observation(
    TARGET,
    exists=True,
    generation=1,
    seen_generation=0,
    conditions=(Condition("Ready", "False", "ValidationFailed", "no such field"),),
)
SERVING = Observation(
    TARGET,
    exists=True,
    generation=1,
    seen_generation=1,
    endpoints=2,
    conditions=(Condition("Ready", "True", "NonZeroServeEndpoints"),),
    clusters=(Cluster("serve-app-abcde", "active", (Application("a", "RUNNING", "", (Deployment("d", "HEALTHY"),)),)),),
)


class Clock:
    """Time that goes only by sleeping."""

    def __init__(self):
        self.time = 0.0

    def sleep(self, seconds):
        self.time += seconds

    def now(self):
        return self.time


def waited(*steps, timeout_s=10.0, settle_s=0.0):
    """What comes of a wait that sees these one after the other, the last for ever; errors are raised."""
    remaining, clock = list(steps), Clock()

    def observe():
        step = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        if isinstance(step, Exception):
            raise step
        return step

    pace = Pace(timeout_s, settle_s=settle_s)
    return wait(observe, lambda seen: seen.done, PlainScreen(), pace, sleep=clock.sleep, now=clock.now)


def test_a_wait_ends_when_it_is_reached(capsys):
    assert waited(STARTING, SERVING).reached
    assert "condition Ready: True (NonZeroServeEndpoints)" in capsys.readouterr().out


@pytest.mark.parametrize("between", [STARTING, UnavailableError("no answer")])
def test_what_serves_must_be_seen_to_for_a_while_without_a_break(between):
    """A status that is still of the moment before the change."""
    assert not waited(SERVING, SERVING, STARTING, settle_s=6).reached
    assert not waited(SERVING, SERVING, between, SERVING, SERVING, STARTING, settle_s=6).reached
    assert waited(SERVING, SERVING, between, SERVING, settle_s=6).reached


def test_what_serves_at_the_last_moment_is_looked_at_to_its_end():
    late = [STARTING] * 4 + [SERVING]
    assert waited(*late, settle_s=6).reached
    assert not waited(*late, SERVING, STARTING, settle_s=6).reached


def test_a_wait_ends_by_time_with_what_is_missing(capsys):
    outcome = waited(STARTING)
    assert (outcome.reached, outcome.hopeless) == (False, False)
    tell(outcome, PlainScreen(), Pace(10), "there/serve-app doesn't serve")
    told = capsys.readouterr().out
    assert "there/serve-app doesn't serve: not after 10 s" in told
    assert "missing: an endpoint that serves" in told


def test_what_is_hopeless_ends_a_wait_early_once_it_stays(capsys):
    outcome = waited(FAILED, timeout_s=1e9)
    assert (outcome.reached, outcome.hopeless) == (False, True)
    told = capsys.readouterr().out
    assert told.count("waiting: RayService serve-app: KubeRay refuses it: no such field") == 1


def test_what_looks_hopeless_for_a_moment_ends_nothing():
    assert waited(FAILED, STARTING, FAILED, SERVING).reached


def test_a_cluster_that_is_away_for_a_while_is_waited_for(capsys):
    assert waited(UnavailableError("no answer"), UnavailableError("no answer"), SERVING).reached
    assert capsys.readouterr().out.count("no answer; trying again") == 1


def test_a_cluster_that_stays_away_is_told_at_the_end(capsys):
    outcome = waited(UnavailableError("no answer"))
    tell(outcome, PlainScreen(), Pace(10), "it")
    assert "the cluster couldn't be read" in capsys.readouterr().out


def test_rights_that_are_taken_away_end_a_wait():
    with pytest.raises(ForbiddenError):
        waited(STARTING, ForbiddenError("no"))


def test_only_what_has_changed_is_told():
    pod = Pod("p", "vision", "serve-app-abcde")
    first = Observation(TARGET, exists=True, pods=(pod,), happenings=(Happening("Pod/p", "Pulling", "image v"),))
    pending = "pods of vision in serve-app-abcde: 0 of 1 ready (Pending)"
    assert [line.text for line in changes(EMPTY, first)] == [pending, "event Pulling Pod/p: image v"]
    assert changes(first, first) == []
    assert [line.text for line in changes(first, EMPTY)] == ["pods of vision in serve-app-abcde: gone"]


def test_a_second_run_does_not_tell_old_events_but_what_warns_of_pods_that_are_there():
    told = (
        Happening("Pod/p", "Pulling", "image v"),
        Happening("Pod/p", "Failed", "no such image", warning=True),
        Happening("Pod/gone", "Failed", "long ago", warning=True),
    )
    seen = Observation(TARGET, exists=True, pods=(Pod("p", "vision"),), happenings=told)
    assert [line.text for line in changes(None, seen)][1:] == ["event Failed Pod/p: no such image"]


def test_a_service_goes_on_serving_beside_its_new_cluster():
    """KubeRay tells nothing of the active cluster's applications then."""
    upgrading = (Condition("Ready", "True"), Condition("UpgradeInProgress", "True"))
    clusters = (Cluster("serve-app-aaaaa", "active"), Cluster("serve-app-bbbbb", "pending"))
    seen = Observation(TARGET, True, False, 2, 2, 1, upgrading, clusters)
    assert (seen.serving, seen.done) == (True, False)
    assert report(seen)[0].text == "RayService there/serve-app: serving, 1 endpoint, upgrading"


def test_a_report_says_first_whether_it_serves_and_why_not():
    assert report(SERVING)[0].text == "RayService there/serve-app: serving, 2 endpoints"
    lines = [line.text for line in report(STARTING, (Reason("x", "is so", "do y"),))]
    assert lines[:3] == ["RayService there/serve-app: not serving, 0 endpoints", "why", "  x: is so; do y"]
    assert report(Observation(TARGET))[0].text == "RayService there/serve-app: not there"


def test_a_load_balancer_that_is_being_made_is_said_to_be():
    seen = Observation(TARGET, exists=True, addresses=(Address("front", "serve", "", "LoadBalancer"),))
    assert "  front serve: none yet: AWS is making the load balancer" in [line.text for line in report(seen)]

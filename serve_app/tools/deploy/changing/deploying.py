"""Brings manifests into the cluster: checked, tried, told, applied, remembered, and followed to the end."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.errors import ConfigurationError, ForbiddenError, NotFoundError
from serve_app.tools.deploy.api.objects import Manifest, Objects
from serve_app.tools.deploy.api.target import Target
from serve_app.tools.deploy.changing.applying import Trial, apply_all, left_over, remove_all, try_all
from serve_app.tools.deploy.changing.differing import difference
from serve_app.tools.deploy.changing.history import History, Revision
from serve_app.tools.deploy.changing.namespaces import with_maker
from serve_app.tools.deploy.changing.preflight import Cleared, check, leave_alone, require_open_namespace
from serve_app.tools.deploy.changing.upgrading import (
    Change,
    Plan,
    has_given_up,
    plan_of,
    require_strategy,
    with_rollout,
)
from serve_app.tools.deploy.looking.observation import Observation
from serve_app.tools.deploy.looking.observing import observe
from serve_app.tools.deploy.looking.screen import Screen
from serve_app.tools.deploy.looking.telling import BUSY, TITLE, Line, address_lines, report
from serve_app.tools.deploy.looking.waiting import Pace, tell, wait
from serve_app.tools.deploy.scenarios.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Job:
    """What to apply, and how."""

    scenario: Scenario
    manifests: tuple[Manifest, ...]
    why: str
    strategy: str | None = None
    force: bool = False
    follow: bool = True
    must_exist: bool = False
    returns_to: int | None = None

    @property
    def target(self) -> Target:
        return Target(self.scenario.name, self.scenario.namespace)

    @property
    def patience_s(self) -> float:
        """As long as KubeRay itself waits, and as the end of an old cluster takes."""
        scenario = self.scenario
        return scenario.initializing_timeout_s + scenario.deletion_delay_s + scenario.drain_s + 60


def service_among(manifests: Sequence[Manifest]) -> Manifest:
    return next(one for one in manifests if one["kind"] == "RayService")


def deploy(objects: Objects, job: Job, screen: Screen, pace: Pace) -> int:
    """0 once it serves, 1 where it doesn't; raises before anything has changed."""
    revisions = past(objects, job.target)
    cleared = clear(objects, job, revisions)
    for note in cleared.notes:
        screen.say(f"note: {note}", BUSY)
    live = objects.live(service_among(cleared.manifests))
    if job.must_exist and live is None:
        raise ConfigurationError(f"RayService {job.target} isn't there: scripts/deploy up brings it up first")
    trials, plan = _try(objects, job, cleared.manifests, live)
    screen.say(f"RayService {job.target}: {plan}", TITLE)
    before = observe(objects, job.target)
    if has_given_up(live):
        _make_room(objects, job, screen, pace)
    revision = _apply(objects, job, [one.manifest for one in trials], revisions, screen)
    if not job.follow:
        screen.say(f"applied as revision {revision.number}; `scripts/deploy status` says how it goes on")
        return 0
    code = _follow(objects, job, plan, before, screen, pace)
    if code == 0:
        History(objects, job.target).mark(revision, "served")
    return code


def past(objects: Objects, target: Target) -> list[Revision]:
    """Nothing where it may not be read: preflight says what right is missing."""
    try:
        return History(objects, target).revisions()
    except ForbiddenError:
        return []


def clear(objects: Objects, job: Job, revisions: Sequence[Revision]) -> Cleared:
    return check(objects, job.target, job.manifests, job.scenario.secrets, _applied(revisions))


def _applied(revisions: Sequence[Revision]) -> Sequence[Manifest]:
    """What the last revision left in the cluster."""
    return revisions[-1].manifests if revisions and revisions[-1].complete else ()


def _try(objects: Objects, job: Job, manifests: Sequence[Manifest], live: Manifest | None) -> tuple[list[Trial], Plan]:
    def marked(anew: bool) -> list[Manifest]:
        return [_marked(objects, one, live, anew) for one in manifests]

    trials = try_all(objects, marked(False), job.force)
    plan = _plan_among(trials)
    if job.strategy == "new-cluster" and not plan.replaces_the_cluster and plan.change is not Change.CREATE:
        trials = try_all(objects, marked(True), job.force)
        plan = _plan_among(trials)
    if plan.change is not Change.CREATE:
        require_strategy(plan, job.strategy)
    return trials, plan


def _marked(objects: Objects, manifest: Manifest, service: Manifest | None, anew: bool) -> Manifest:
    """With what is known only beside the cluster."""
    if manifest["kind"] == "Namespace":
        return with_maker(manifest, objects.live(manifest))
    return with_rollout(manifest, service, anew) if manifest["kind"] == "RayService" else manifest


def _plan_among(trials: Sequence[Trial]) -> Plan:
    return plan_of(next(one for one in trials if one.manifest["kind"] == "RayService"))


def _make_room(objects: Objects, job: Job, screen: Screen, pace: Pace) -> None:
    screen.say("KubeRay has given this RayService up and looks at it no more: it is deleted and made anew", BUSY)
    service = service_among(job.manifests)
    objects.delete(service)
    deadline = time.monotonic() + pace.timeout_s
    while objects.live(service) is not None:
        if time.monotonic() > deadline:
            raise ConfigurationError(f"RayService {job.target} doesn't go: see its finalizers, then run this again")
        time.sleep(pace.every_s)


def _apply(
    objects: Objects, job: Job, manifests: Sequence[Manifest], revisions: Sequence[Revision], screen: Screen
) -> Revision:
    spaces = [one for one in manifests if one["kind"] == "Namespace"]
    rest = [one for one in manifests if one["kind"] != "Namespace"]
    apply_all(objects, spaces, screen.say, job.force)
    history = History(objects, job.target)
    revision = history.begin(job.manifests, job.scenario.scenario, job.why, job.returns_to)
    apply_all(objects, rest, screen.say, job.force)
    remove_all(objects, leftovers(revisions, job.manifests), screen.say)
    history.mark(revision, "applied")
    return revision


def leftovers(revisions: Sequence[Revision], wanted: Sequence[Manifest]) -> list[Manifest]:
    """Of every run since the last complete one: one that broke off has cleaned nothing up."""
    applied: list[Manifest] = []
    for revision in reversed(revisions):
        applied = [*revision.manifests, *applied]
        if revision.complete:
            break
    return left_over(applied, wanted)


def _follow(objects: Objects, job: Job, plan: Plan, before: Observation, screen: Screen, pace: Pace) -> int:
    left = before.cluster("active") if plan.replaces_the_cluster and not before.cluster("pending") else None

    def reached(seen: Observation) -> bool:
        if not plan.replaces_the_cluster:
            return seen.done
        switched = left is None or any(one.name != left.name for one in seen.clusters if one.role == "active")
        return seen.done and switched and not seen.cluster("old")

    outcome = wait(lambda: observe(objects, job.target), reached, screen, pace)
    if outcome.reached and outcome.seen:
        screen.show([report(outcome.seen)[0], *address_lines(outcome.seen)])
        return 0
    tell(outcome, screen, pace, f"{job.target} doesn't serve what was applied")
    if outcome.seen and outcome.seen.serving:
        screen.say("  what served before still does", BUSY)
    screen.say("run the same command again to go on waiting; scripts/deploy rollback returns to the revision before")
    return 1


def compare(objects: Objects, job: Job, screen: Screen) -> int:
    """0 where nothing would change, 1 where something would."""
    revisions = past(objects, job.target)
    kept = [one for one in job.manifests if objects.find_kind(one["apiVersion"], one["kind"])]
    for manifest in job.manifests:
        if manifest not in kept:
            screen.say(f"note: the cluster has no {manifest['kind']} of {manifest['apiVersion']}", BUSY)
    if not any(one["kind"] == "RayService" for one in kept):
        raise NotFoundError("the cluster knows no RayService: KubeRay isn't installed")
    there = require_open_namespace(objects, job.target)
    kept, notes = leave_alone(objects, kept, _applied(revisions), there)
    for note in notes:
        screen.say(f"note: {note}", BUSY)
    trials, plan = _try(objects, job, kept, objects.live(service_among(kept)))
    going = [live for one in leftovers(revisions, job.manifests) if (live := objects.live(one))]
    lines = difference(trials, going)
    screen.show([*lines, Line(f"RayService {job.target}: {plan}", TITLE)])
    return 1 if lines else 0

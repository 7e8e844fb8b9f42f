"""Brings manifests into the cluster: preflight, dry run, apply, record a revision, and wait until it serves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from serve_app.errors import ConfigurationError, ForbiddenError
from serve_app.tools.deploy.api.objects import Manifest, Objects
from serve_app.tools.deploy.api.target import Target
from serve_app.tools.deploy.rollout.apply import DryRun, apply_all, delete_all, dry_run_all, obsolete
from serve_app.tools.deploy.rollout.delete import wait_until_gone
from serve_app.tools.deploy.rollout.diff import diff_lines
from serve_app.tools.deploy.rollout.history import History, Revision
from serve_app.tools.deploy.rollout.namespaces import with_owner
from serve_app.tools.deploy.rollout.preflight import Checked, check, leave_unchanged, require_kinds, require_namespace
from serve_app.tools.deploy.rollout.scale import resize_clusters
from serve_app.tools.deploy.rollout.upgrade import (
    Change,
    Plan,
    has_timed_out,
    plan_of,
    require_strategy,
    with_configuration_of,
    with_rollout_mark,
)
from serve_app.tools.deploy.scenarios.scenario import Scenario
from serve_app.tools.deploy.status.model import ServiceStatus
from serve_app.tools.deploy.status.read import read_status
from serve_app.tools.deploy.status.report import BUSY, TITLE, Line, address_lines, report
from serve_app.tools.deploy.status.screen import Screen
from serve_app.tools.deploy.status.wait import Pace, show_failure, wait

STAGED = "staged"


@dataclass(frozen=True, slots=True)
class Rollout:
    """What to apply, and how."""

    scenario: Scenario
    manifests: tuple[Manifest, ...]
    why: str
    strategy: str | None = None
    force: bool = False
    wait: bool = True
    must_exist: bool = False
    returns_to: int | None = None

    @property
    def target(self) -> Target:
        return Target(self.scenario.name, self.scenario.namespace)

    @property
    def service(self) -> Manifest:
        return next(one for one in self.manifests if one["kind"] == "RayService")

    @property
    def timeout_s(self) -> float:
        """KubeRay's own timeout, and the end of an old cluster."""
        scenario = self.scenario
        return scenario.initializing_timeout_s + scenario.deletion_delay_s + scenario.drain_s + 60


def roll_out(objects: Objects, rollout: Rollout, screen: Screen, pace: Pace) -> int:
    """0 if it serves, 1 if it doesn't; a problem found before anything was changed is raised."""
    if rollout.strategy == STAGED:
        return _roll_out_in_stages(objects, rollout, screen, pace)
    revisions = _readable_revisions(objects, rollout.target)
    checked = check(objects, rollout.target, rollout.manifests, rollout.scenario, _applied(revisions))
    _say_notes(checked, screen)
    live = objects.live(rollout.service)
    if rollout.must_exist and live is None:
        raise ConfigurationError(f"RayService {rollout.target} not found: create it with scripts/deploy up")
    dry_runs, plan = _dry_run(objects, rollout, checked.manifests, live)
    screen.say(f"RayService {rollout.target}: {plan}", TITLE)
    if _has_nothing_to_do(rollout, dry_runs, revisions):
        screen.say("nothing to do: the cluster has all of it")
    before = read_status(objects, rollout.target)
    if has_timed_out(live):
        screen.say("KubeRay gave up on this RayService and ignores it: deleting and recreating it", BUSY)
        objects.delete(rollout.service)
        if not wait_until_gone(objects, [rollout.service], screen, pace):
            return 1
        dry_runs, _ = _dry_run(objects, rollout, checked.manifests, None)
    revision = _apply(objects, rollout, dry_runs, revisions, screen)
    if not plan.replaces_cluster:
        resize_clusters(objects, rollout.target, rollout.service, screen.say)
    if not rollout.wait:
        screen.say(f"applied as revision {revision.number}; follow it with `scripts/deploy status`")
        return 0
    code = _follow(objects, rollout, plan, before, screen, pace)
    if code == 0:
        History(objects, rollout.target).mark(revision, "served")
    return code


def _roll_out_in_stages(objects: Objects, rollout: Rollout, screen: Screen, pace: Pace) -> int:
    """A cluster that is to be replaced keeps its configuration until it is."""
    live = objects.live(rollout.service)
    if live is not None:
        first = tuple(
            with_configuration_of(live, one) if one["kind"] == "RayService" else one for one in rollout.manifests
        )
        screen.say("first stage: the new cluster, with the configuration of now", TITLE)
        why = f"{rollout.why}, first stage"
        code = roll_out(objects, replace(rollout, manifests=first, why=why, strategy=None, wait=True), screen, pace)
        if code:
            return code
        screen.say("second stage: the new configuration", TITLE)
    return roll_out(objects, replace(rollout, strategy=None), screen, pace)


def show_diff(objects: Objects, rollout: Rollout, screen: Screen) -> int:
    """0 if nothing would change, 1 otherwise."""
    require_kinds(objects, rollout.manifests)
    revisions = _readable_revisions(objects, rollout.target)
    exists = require_namespace(objects, rollout.target)
    checked = leave_unchanged(objects, rollout.manifests, _applied(revisions), exists)
    _say_notes(checked, screen)
    dry_runs, plan = _dry_run(objects, rollout, checked.manifests, objects.live(rollout.service))
    removed = [live for one in _obsolete(revisions, rollout.manifests) if (live := objects.live(one))]
    lines = diff_lines(dry_runs, removed)
    screen.show([*lines, Line(f"RayService {rollout.target}: {plan}", TITLE)])
    return 1 if lines else 0


def _say_notes(checked: Checked, screen: Screen) -> None:
    for note in checked.notes:
        screen.say(f"note: {note}", BUSY)


def _readable_revisions(objects: Objects, target: Target) -> list[Revision]:
    """None if the user may not read them: the preflight check then names the missing permission."""
    try:
        return History(objects, target).revisions()
    except ForbiddenError:
        return []


def _applied(revisions: Sequence[Revision]) -> Sequence[Manifest]:
    """The manifests of the latest revision, if it was applied completely."""
    return revisions[-1].manifests if revisions and revisions[-1].complete else ()


def _obsolete(revisions: Sequence[Revision], wanted: Sequence[Manifest]) -> list[Manifest]:
    """From every revision since the last complete one: interrupted runs have deleted nothing."""
    applied: list[Manifest] = []
    for revision in reversed(revisions):
        applied = [*revision.manifests, *applied]
        if revision.complete:
            break
    return obsolete(applied, wanted)


def _dry_run(
    objects: Objects, rollout: Rollout, manifests: Sequence[Manifest], live: Manifest | None
) -> tuple[list[DryRun], Plan]:
    def attempt(new_cluster: bool) -> tuple[list[DryRun], Plan]:
        marked = [_marked(objects, one, live, new_cluster) for one in manifests]
        dry_runs = dry_run_all(objects, marked, rollout.force)
        return dry_runs, plan_of(next(one for one in dry_runs if one.manifest["kind"] == "RayService"))

    dry_runs, plan = attempt(new_cluster=False)
    if plan.change is Change.CREATE:
        return dry_runs, plan
    if rollout.strategy == "new-cluster" and not plan.replaces_cluster:
        dry_runs, plan = attempt(new_cluster=True)
    require_strategy(plan, rollout.strategy)
    return dry_runs, plan


def _marked(objects: Objects, manifest: Manifest, service: Manifest | None, new_cluster: bool) -> Manifest:
    """Adds annotations that depend on the live objects."""
    if manifest["kind"] == "Namespace":
        return with_owner(manifest, objects.live(manifest))
    return with_rollout_mark(manifest, service, new_cluster) if manifest["kind"] == "RayService" else manifest


def _has_nothing_to_do(rollout: Rollout, runs: Sequence[DryRun], revisions: Sequence[Revision]) -> bool:
    return not any(one.changes for one in runs) and not _obsolete(revisions, rollout.manifests)


def _apply(
    objects: Objects, rollout: Rollout, runs: Sequence[DryRun], revisions: Sequence[Revision], screen: Screen
) -> Revision:
    namespaces = [one for one in runs if one.manifest["kind"] == "Namespace"]
    rest = [one for one in runs if one.manifest["kind"] != "Namespace"]
    apply_all(objects, namespaces, screen.say, rollout.force)
    history = History(objects, rollout.target)
    revision = history.begin(rollout.manifests, rollout.scenario.scenario, rollout.why, rollout.returns_to)
    apply_all(objects, rest, screen.say, rollout.force)
    delete_all(objects, _obsolete(revisions, rollout.manifests), screen.say)
    history.mark(revision, "applied")
    return revision


def _follow(objects: Objects, rollout: Rollout, plan: Plan, before: ServiceStatus, screen: Screen, pace: Pace) -> int:
    replaced = before.cluster("active") if plan.replaces_cluster and not before.cluster("pending") else None

    def reached(seen: ServiceStatus) -> bool:
        if not plan.replaces_cluster:
            return seen.up_to_date
        active = seen.cluster("active")
        switched = replaced is None or (active is not None and active.name != replaced.name)
        return seen.up_to_date and switched and not seen.cluster("old")

    result = wait(lambda: read_status(objects, rollout.target), reached, screen, pace)
    if result.reached and result.seen:
        screen.show([report(result.seen)[0], *address_lines(result.seen)])
        return 0
    show_failure(result, screen, pace, f"{rollout.target} isn't serving this revision")
    if result.seen and result.seen.serving:
        screen.say("the previous revision is still serving", BUSY)
    screen.say("run the same command again to keep waiting, or scripts/deploy rollback to go back")
    return 1

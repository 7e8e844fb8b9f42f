"""Takes a deployment out of the cluster in the right order, and says what remains and costs money."""

import time
from collections.abc import Sequence
from typing import Any

from serve_app.deploy.api.objects import Objects, label
from serve_app.deploy.api.target import FIELD_MANAGER, MANAGER_LABEL, Target
from serve_app.deploy.changing.applying import identity, remove_all
from serve_app.deploy.changing.history import History, config_map_of
from serve_app.deploy.looking.explaining import Reason
from serve_app.deploy.looking.observation import Observation
from serve_app.deploy.looking.observing import machine_of, observe
from serve_app.deploy.looking.screen import Screen
from serve_app.deploy.looking.telling import BAD, BUSY, GOOD, doing_of
from serve_app.deploy.looking.waiting import Pace, wait
from serve_app.errors import ConfigurationError, ForbiddenError

WORK = (
    ("ray.io/v1", "RayService"),
    ("ray.io/v1", "RayCluster"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("v1", "Pod"),
    ("v1", "PersistentVolumeClaim"),
)

Manifest = dict[str, Any]


def inventory(objects: Objects, target: Target, rendered: Sequence[Manifest]) -> list[Manifest]:
    """Everything that was ever applied and is still there, in the order in which it was applied."""
    found = {identity(one): one for one in rendered}
    for revision in History(objects, target).revisions():
        found |= {identity(one): one for one in revision.manifests if identity(one) not in found}
    # whoever may not see an object of the rendering gets the error of deleting it
    return [one for one in found.values() if objects.live(one) is not None]


def require_rights(objects: Objects, manifests: Sequence[Manifest]) -> None:
    kinds = {(objects.kind(one["apiVersion"], one["kind"]), one["metadata"].get("namespace")) for one in manifests}
    refused = sorted(kind.plural for kind, namespace in kinds if not objects.allows("delete", kind, namespace))
    if refused:
        raise ForbiddenError(f"you may not delete {', '.join(refused)}; nothing was deleted, ask for these rights")


def remove(
    objects: Objects, target: Target, found: Sequence[Manifest], screen: Screen, pace: Pace, keep_namespace: bool
) -> int:
    """0 once all is gone that should be; a second run finishes one that broke off."""
    services = [one for one in found if one["kind"] == "RayService"]
    rest = [one for one in reversed(found) if one["kind"] not in ("RayService", "Namespace")]
    remove_all(objects, services, screen.say)
    if not _wait_for_pods(objects, target, screen, pace):
        return 1
    remove_all(objects, rest, screen.say)
    if not _wait_gone(objects, rest, screen, pace):
        return 1
    history = [config_map_of(one, target) for one in History(objects, target).revisions()]
    remove_all(objects, history, screen.say)
    spaces = [] if keep_namespace else _own_namespaces(objects, target, found, screen)
    remove_all(objects, spaces, screen.say)
    if not _wait_gone(objects, spaces, screen, pace):
        return 1
    screen.say(f"{target} is gone", GOOD)
    return 0


def _wait_for_pods(objects: Objects, target: Target, screen: Screen, pace: Pace) -> bool:
    """Ray's pods end their work first; what they refer to must be there until then."""

    def gone(seen: Observation) -> bool:
        return not seen.exists and not seen.clusters and not any(pod.cluster for pod in seen.pods)

    outcome = wait(lambda: observe(objects, target), gone, screen, pace, explain=_what_stays)
    if outcome.reached:
        return True
    screen.say(f"{target} isn't gone after {pace.timeout_s:g} s; run the same command again to go on", BAD)
    for reason in outcome.reasons:
        screen.say(f"  {reason}", BAD)
    return False


def _what_stays(seen: Observation) -> tuple[Reason, ...]:
    found = [Reason(f"cluster {one.name}", "is still there") for one in seen.clusters]
    return (*found, *(Reason(f"pod {pod.name}", doing_of(pod)) for pod in seen.pods if pod.cluster))


def _wait_gone(objects: Objects, manifests: Sequence[Manifest], screen: Screen, pace: Pace) -> bool:
    deadline = time.monotonic() + pace.timeout_s
    while stays := [one for one in manifests if objects.live(one) is not None]:
        if time.monotonic() > deadline:
            names = ", ".join(label(one) for one in stays)
            screen.say(
                f"not gone after {pace.timeout_s:g} s: {names}; finalizers hold them: see kubectl get -o yaml", BAD
            )
            return False
        time.sleep(pace.every_s)
    return True


def _own_namespaces(objects: Objects, target: Target, found: Sequence[Manifest], screen: Screen) -> list[Manifest]:
    """Only one that was made here, and with nobody else's in it."""
    spaces = [one for one in found if one["kind"] == "Namespace"]
    kept = []
    for manifest in spaces:
        live = objects.live(manifest) or {"metadata": {}}
        others = _others(objects, target)
        if (live["metadata"].get("labels") or {}).get(MANAGER_LABEL) != FIELD_MANAGER:
            screen.say(f"{label(manifest)} stays: it wasn't made by scripts/deploy", BUSY)
        elif others:
            screen.say(f"{label(manifest)} stays: it also holds {', '.join(others[:5])}", BUSY)
        else:
            kept.append(manifest)
    return kept


def _others(objects: Objects, target: Target) -> list[str]:
    """Work of other people: what runs, and what keeps data."""
    found = []
    for version, kind in WORK:
        for one in objects.list(version, kind, target.namespace):
            if not (target.owns(one) or target.owns_cluster(one["metadata"]["name"])):
                found.append(f"{kind}/{one['metadata']['name']}")
    return found


def remains(objects: Objects, target: Target) -> list[str]:
    """What is still there and costs money, or may; what may not be listed is said to be unknown."""
    found: list[str] = []

    def each(what: str, version: str, kind: str, namespace: str | None) -> list[Manifest]:
        try:
            return objects.list(version, kind, namespace)
        except ForbiddenError:
            found.append(f"{what}: unknown, you may not list them")
            return []

    for one in each("load balancers", "v1", "Service", target.namespace):
        if (one.get("spec") or {}).get("type") == "LoadBalancer":
            found.append(f"load balancer of Service {one['metadata']['name']}")
    for one in each("volumes", "v1", "PersistentVolumeClaim", target.namespace):
        size = ((one["spec"].get("resources") or {}).get("requests") or {}).get("storage", "?")
        found.append(f"volume of PersistentVolumeClaim {one['metadata']['name']} ({size})")
    for one in each("released volumes", "v1", "PersistentVolume", None):
        if ((one.get("spec") or {}).get("claimRef") or {}).get("namespace") == target.namespace:
            found.append(f"PersistentVolume {one['metadata']['name']}, which outlives its claim")
    for one in each("Karpenter's nodes", "karpenter.sh/v1", "NodeClaim", None):
        machine = machine_of(one)
        found.append(f"node {machine.name} {machine.instance_type}".rstrip() + ": Karpenter ends it once it is empty")
    if objects.get("v1", "Namespace", target.namespace):
        found.append(f"namespace {target.namespace} (free by itself)")
    return found


def require_consent(yes: bool, asks: bool, found: Sequence[Manifest], target: Target) -> bool:
    """Nothing is deleted by accident: a person says so, or --yes does."""
    if yes:
        return True
    if not asks:
        raise ConfigurationError(f"down deletes {len(found)} objects of {target}; without a terminal say so with --yes")
    answer = input(f"delete these {len(found)} objects of {target}? [y/N] ")
    return answer.strip().lower() in ("y", "yes")

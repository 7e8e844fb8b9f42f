"""Deletes a service in the right order, and lists what remains and costs money."""

import sys
import time
from collections.abc import Sequence

from serve_app.errors import ConfigurationError, ForbiddenError
from serve_app.tools.deploy.api.objects import Manifest, Objects, label
from serve_app.tools.deploy.api.target import Target
from serve_app.tools.deploy.rollout.apply import delete_all, identity
from serve_app.tools.deploy.rollout.history import History, config_map_of
from serve_app.tools.deploy.rollout.namespaces import reason_to_keep
from serve_app.tools.deploy.status.model import ServiceStatus
from serve_app.tools.deploy.status.problems import Problem
from serve_app.tools.deploy.status.read import node_of, read_status
from serve_app.tools.deploy.status.report import BAD, BUSY, GOOD, state_of
from serve_app.tools.deploy.status.screen import Screen
from serve_app.tools.deploy.status.wait import Pace, wait


def find_applied(
    objects: Objects, target: Target, rendered: Sequence[Manifest], keep_namespace: bool = False
) -> list[Manifest]:
    """Everything that was ever applied and still exists, in the order in which it was applied."""
    found = {identity(one): one for one in rendered}
    for revision in History(objects, target).revisions():
        found |= {identity(one): one for one in revision.manifests if identity(one) not in found}
    wanted = [one for one in found.values() if one["kind"] != "Namespace" or not keep_namespace]
    return [one for one in wanted if objects.live(one) is not None]


def without_kept_namespaces(
    objects: Objects, target: Target, found: Sequence[Manifest], screen: Screen
) -> list[Manifest]:
    wanted = []
    for one in found:
        reason = reason_to_keep(objects, target, one) if one["kind"] == "Namespace" else ""
        if reason:
            screen.say(f"{label(one)} is kept: {reason}", BUSY)
        else:
            wanted.append(one)
    return wanted


def require_rights(objects: Objects, manifests: Sequence[Manifest]) -> None:
    kinds = {(objects.kind(one["apiVersion"], one["kind"]), one["metadata"].get("namespace")) for one in manifests}
    refused = sorted(kind.plural for kind, namespace in kinds if not objects.allows("delete", kind, namespace))
    if refused:
        advice = "; use --keep-namespace to keep the namespace" if "namespaces" in refused else ""
        raise ForbiddenError(f"you may not delete {', '.join(refused)}; nothing was deleted{advice}")


def confirm(found: Sequence[Manifest], target: Target) -> bool:
    if not sys.stdin.isatty():
        raise ConfigurationError(f"down deletes {len(found)} objects of {target}; pass --yes to confirm")
    try:
        answer = input(f"delete these {len(found)} objects of {target}? [y/N] ")
    except EOFError:
        print()
        return False
    return answer.strip().lower() in ("y", "yes")


def delete_service(objects: Objects, target: Target, found: Sequence[Manifest], screen: Screen, pace: Pace) -> int:
    """0 once everything is gone; running it again finishes an interrupted run."""
    services = [one for one in found if one["kind"] == "RayService"]
    rest = [one for one in reversed(found) if one["kind"] not in ("RayService", "Namespace")]
    delete_all(objects, services, screen.say)
    if not _wait_for_pods(objects, target, screen, pace):
        return 1
    delete_all(objects, rest, screen.say)
    if not wait_until_gone(objects, rest, screen, pace):
        return 1
    delete_all(objects, [config_map_of(one, target) for one in History(objects, target).revisions()], screen.say)
    # checked again: the deletion took minutes
    namespaces = [one for one in found if one["kind"] == "Namespace"]
    namespaces = without_kept_namespaces(objects, target, namespaces, screen)
    delete_all(objects, namespaces, screen.say)
    if not wait_until_gone(objects, namespaces, screen, pace):
        return 1
    screen.say(f"{target} is deleted", GOOD)
    return 0


def _wait_for_pods(objects: Objects, target: Target, screen: Screen, pace: Pace) -> bool:
    """Ray's pods finish their work first; what they refer to must exist until then."""

    def gone(seen: ServiceStatus) -> bool:
        return not seen.exists and not seen.clusters and not any(pod.cluster for pod in seen.pods)

    result = wait(lambda: read_status(objects, target), gone, screen, pace, explain=_remaining_pods)
    if result.reached:
        return True
    screen.say(f"{target} isn't deleted after {pace.timeout_s:g} s; run the same command again to continue", BAD)
    for problem in result.problems:
        screen.say(f"  {problem}", BAD)
    return False


def _remaining_pods(seen: ServiceStatus) -> tuple[Problem, ...]:
    clusters = [Problem(f"cluster {one.name}", "still exists") for one in seen.clusters]
    return (*clusters, *(Problem(f"pod {pod.name}", state_of(pod)) for pod in seen.pods if pod.cluster))


def wait_until_gone(objects: Objects, manifests: Sequence[Manifest], screen: Screen, pace: Pace) -> bool:
    deadline = time.monotonic() + pace.timeout_s
    while remaining := [one for one in manifests if objects.live(one) is not None]:
        if time.monotonic() > deadline:
            names = ", ".join(label(one) for one in remaining)
            screen.say(
                f"not deleted after {pace.timeout_s:g} s: {names}; check their finalizers (kubectl get -o yaml)", BAD
            )
            return False
        time.sleep(pace.every_s)
    return True


def remaining_costs(objects: Objects, target: Target) -> list[str]:
    """What still exists and may cost money."""
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
            found.append(f"PersistentVolume {one['metadata']['name']}, kept after its claim")
    for one in each("Karpenter nodes", "karpenter.sh/v1", "NodeClaim", None):
        node = node_of(one)
        found.append(f"node {node.name} {node.instance_type}".rstrip() + ": Karpenter removes it once it is empty")
    if _may_exist(objects, target.namespace):
        found.append(f"namespace {target.namespace} (no cost by itself)")
    return found


def _may_exist(objects: Objects, namespace: str) -> bool:
    try:
        return objects.get("v1", "Namespace", namespace) is not None
    except ForbiddenError:
        return True

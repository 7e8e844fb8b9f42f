"""Takes a deployment out of the cluster in the right order, and says what remains and costs money."""

import time
from collections.abc import Sequence

from serve_app.errors import ConfigurationError, ForbiddenError
from serve_app.tools.deploy.api.objects import Manifest, Objects, label
from serve_app.tools.deploy.api.target import Target
from serve_app.tools.deploy.changing.applying import identity, remove_all
from serve_app.tools.deploy.changing.history import History, config_map_of
from serve_app.tools.deploy.changing.namespaces import reason_to_keep
from serve_app.tools.deploy.looking.explaining import Reason
from serve_app.tools.deploy.looking.observation import Observation
from serve_app.tools.deploy.looking.observing import machine_of, observe
from serve_app.tools.deploy.looking.screen import Screen
from serve_app.tools.deploy.looking.telling import BAD, BUSY, GOOD, doing_of
from serve_app.tools.deploy.looking.waiting import Pace, wait


def inventory(
    objects: Objects, target: Target, rendered: Sequence[Manifest], keep_namespace: bool = False
) -> list[Manifest]:
    """Everything that was ever applied and is still there, in the order in which it was applied."""
    found = {identity(one): one for one in rendered}
    for revision in History(objects, target).revisions():
        found |= {identity(one): one for one in revision.manifests if identity(one) not in found}
    wanted = [one for one in found.values() if one["kind"] != "Namespace" or not keep_namespace]
    # whoever may not see an object of the rendering gets the error of deleting it
    return [one for one in wanted if objects.live(one) is not None]


def without_namespaces_of_others(
    objects: Objects, target: Target, found: Sequence[Manifest], screen: Screen
) -> list[Manifest]:
    going = []
    for one in found:
        why = reason_to_keep(objects, target, one) if one["kind"] == "Namespace" else ""
        if why:
            screen.say(f"{label(one)} stays: {why}", BUSY)
        else:
            going.append(one)
    return going


def require_rights(objects: Objects, manifests: Sequence[Manifest]) -> None:
    kinds = {(objects.kind(one["apiVersion"], one["kind"]), one["metadata"].get("namespace")) for one in manifests}
    refused = sorted(kind.plural for kind, namespace in kinds if not objects.allows("delete", kind, namespace))
    if refused:
        advice = "; --keep-namespace leaves the namespace" if "namespaces" in refused else ""
        raise ForbiddenError(
            f"you may not delete {', '.join(refused)}; nothing was deleted, ask for these rights{advice}"
        )


def remove(objects: Objects, target: Target, found: Sequence[Manifest], screen: Screen, pace: Pace) -> int:
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
    # looked at again: it took minutes
    spaces = without_namespaces_of_others(objects, target, [one for one in found if one["kind"] == "Namespace"], screen)
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
    if _may_be_there(objects, target.namespace):
        found.append(f"namespace {target.namespace} (free by itself)")
    return found


def _may_be_there(objects: Objects, namespace: str) -> bool:
    try:
        return objects.get("v1", "Namespace", namespace) is not None
    except ForbiddenError:
        return True


def require_consent(yes: bool, asks: bool, found: Sequence[Manifest], target: Target) -> bool:
    """Nothing is deleted by accident: a person says so, or --yes does."""
    if yes:
        return True
    if not asks:
        raise ConfigurationError(f"down deletes {len(found)} objects of {target}; without a terminal say so with --yes")
    try:
        answer = input(f"delete these {len(found)} objects of {target}? [y/N] ")
    except EOFError:
        print()
        return False
    return answer.strip().lower() in ("y", "yes")

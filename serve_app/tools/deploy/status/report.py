"""Text and JSON of a service's status: all of it, or what changed since the previous one."""

import dataclasses
import json
from collections.abc import Iterator

from serve_app.tools.deploy.status.model import Application, Cluster, Deployment, Event, Pod, ServiceStatus
from serve_app.tools.deploy.status.problems import Problem, problems_of

EVENTS_SHOWN = 8
PROGRESS = frozenset({"Pulling", "Pulled", "TriggeredScaleUp", "Nominated", "Launched"})  # normal events worth a line
REMOVABLE = ("cluster ", "pods ", "node ")  # reported when they disappear
GOOD, BAD, BUSY, QUIET, TITLE = "green", "red", "yellow", "dim", "bold"


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    text: str
    style: str = ""  # for rich; plain output ignores it


def as_json(seen: ServiceStatus) -> str:
    found = dataclasses.asdict(seen)
    found |= {"serving": seen.serving, "up_to_date": seen.up_to_date}
    return json.dumps(found | {"problems": [str(one) for one in problems_of(seen)]})


def changes(before: ServiceStatus | None, now: ServiceStatus) -> list[Line]:
    """A line for each state that changed and each new event."""
    old, new = dict(_states(before)) if before else {}, dict(_states(now))
    lines = [Line(f"{key}: {value}") for key, value in new.items() if old.get(key) != value]
    lines += [Line(f"{key}: gone") for key in sorted(old.keys() - new.keys()) if key.startswith(REMOVABLE)]
    return lines + [Line(f"event {_event(one)}") for one in _new_events(before, now)]


def _new_events(before: ServiceStatus | None, now: ServiceStatus) -> list[Event]:
    """At first only warnings about existing pods: the rest may be days old."""
    notable = _notable_events(now)
    if before is None:
        existing = {f"Pod/{pod.name}" for pod in now.pods}
        return [one for one in notable if one.warning and one.about in existing]
    known = {(one.about, one.reason, one.message) for one in before.events}
    return [one for one in notable if (one.about, one.reason, one.message) not in known]


def _notable_events(seen: ServiceStatus) -> list[Event]:
    return [one for one in seen.events if one.warning or one.reason in PROGRESS]


def _states(seen: ServiceStatus) -> Iterator[tuple[str, str]]:
    for condition in seen.conditions:
        yield f"condition {condition.type}", f"{condition.status} ({condition.reason})"
    for cluster in seen.clusters:
        yield f"cluster {cluster.name}", cluster.role
    for (cluster_name, group), pods in seen.groups.items():
        yield f"pods of {group}{f' in {cluster_name}' if cluster_name else ''}", _count(pods)
    for cluster in seen.clusters:
        for application in cluster.applications:
            yield f"application {application.name} in {cluster.name}", application.status
            for one in application.deployments:
                yield f"deployment {one.name} in {cluster.name}", one.status
    for node in seen.nodes:
        yield f"node {node.name}", "ready" if node.ready else "launching"


def _count(pods: tuple[Pod, ...]) -> str:
    ready = sum(pod.ready for pod in pods)
    states = sorted({state_of(pod) for pod in pods if not pod.ready})
    return f"{ready} of {len(pods)} ready" + (f" ({', '.join(states)})" if states else "")


def state_of(pod: Pod) -> str:
    """A pod's state in a word or two."""
    if pod.deleting:
        return "Terminating"
    if pod.unschedulable:
        return "unschedulable"
    for container in pod.containers:
        done = container.state == "terminated" and container.exit_code == 0
        if container.init and not done and not (container.state == "running" and container.ready):
            return f"init container {container.name}" + (f" {container.reason}" if container.reason else "")
        if not container.init and container.state != "running":
            return container.reason or container.state
    return "Ready" if pod.ready else {"Running": "starting"}.get(pod.phase, pod.phase)


def _event(one: Event) -> str:
    times = f" ({one.count} times)" if one.count > 1 else ""
    return f"{one.reason} {one.about}: {_explained(one)}{times}"


def _explained(one: Event) -> str:
    """KubeRay's readiness probe asks two things, and prints `success` for each that answers."""
    message = " ".join(one.message.split())
    if message == "Readiness probe failed: success":
        waits = "the GCS doesn't answer yet" if "-head-" in one.about else "Serve's proxy doesn't answer on it yet"
        return f"Readiness probe failed: the pod's raylet is healthy, {waits}"
    if message.rstrip(": ") == "Readiness probe failed":
        return "Readiness probe failed: the pod's raylet isn't healthy yet"
    if one.reason == "FailedToUpdateServeApplications":
        cause = message.rpartition("err: ")[2]
        return f"Ray's dashboard doesn't take the applications yet, and the operator tries again: {cause}"
    return message


def report(seen: ServiceStatus, problems: tuple[Problem, ...] = ()) -> list[Line]:
    """All of it, the most important first."""
    lines = [_headline(seen), *_problem_lines(problems), *address_lines(seen)]
    for cluster in seen.clusters:
        lines += _cluster_lines(cluster)
    lines += _pod_lines(seen)
    lines += [
        Line(f"  {one.type}: {one.status} ({one.reason}) {one.message}".rstrip(), QUIET) for one in seen.conditions
    ]
    if shown := _notable_events(seen)[-EVENTS_SHOWN:]:
        lines.append(Line("events", TITLE))
        lines += [Line(f"  {one.at} {_event(one)}".rstrip(), BUSY if one.warning else QUIET) for one in shown]
    lines += [Line(f"not shown: {what}", QUIET) for what in seen.unreadable]
    return lines


def _headline(seen: ServiceStatus) -> Line:
    about = f"RayService {seen.target}"
    if not seen.exists:
        return Line(f"{about}: not found", BAD)
    if seen.deleting:
        return Line(f"{about}: being deleted", BUSY)
    endpoints = f"{seen.endpoints} endpoint{'' if seen.endpoints == 1 else 's'}"
    if seen.up_to_date:
        return Line(f"{about}: serving, {endpoints}", GOOD)
    if seen.serving:
        upgrading = seen.is_true("UpgradeInProgress")
        return Line(f"{about}: serving, {endpoints}, {'upgrading' if upgrading else 'update in progress'}", BUSY)
    return Line(f"{about}: not serving, {endpoints}", BAD)


def _problem_lines(problems: tuple[Problem, ...]) -> list[Line]:
    return [Line("problems", TITLE), *(Line(f"  {one}", BAD) for one in problems)] if problems else []


def address_lines(seen: ServiceStatus) -> list[Line]:
    lines = [Line("addresses", TITLE)] if seen.addresses else []
    for one in seen.addresses:
        url = one.url or "pending: AWS is creating the load balancer"
        inside = " (in the cluster)" if one.kind == "ClusterIP" else ""
        lines.append(Line(f"  {one.service} {one.port}: {url}{inside}"))
    return lines


def _cluster_lines(cluster: Cluster) -> list[Line]:
    lines = [Line(f"{cluster.role} cluster {cluster.name}", TITLE)]
    for application in cluster.applications:
        lines.append(_serve_line(f"  application {application.name}", application))
        lines += [_serve_line(f"    {one.name}", one, _replicas(one)) for one in application.deployments]
    return lines


def _replicas(deployment: Deployment) -> str:
    if deployment.running is None:
        return ""
    wanted = "" if deployment.wanted is None else f" of {deployment.wanted}"
    return f", {deployment.running}{wanted} replicas"


def _serve_line(title: str, one: Application | Deployment, more: str = "") -> Line:
    if one.status in ("RUNNING", "HEALTHY"):
        style = GOOD
    else:
        style = BAD if "FAILED" in one.status or one.status == "UNHEALTHY" else BUSY
    return Line(f"{title}: {one.status}{more}", style)


def _pod_lines(seen: ServiceStatus) -> list[Line]:
    lines = [Line("pods", TITLE)] if seen.pods else []
    for (cluster, group), pods in seen.groups.items():
        ready = all(pod.ready for pod in pods)
        lines.append(Line(f"  {group}{f' of {cluster}' if cluster else ''}: {_count(pods)}", GOOD if ready else BUSY))
        for pod in pods:
            restarts = sum(one.restarts for one in pod.containers)
            more = f", {restarts} restarts" if restarts else ""
            lines.append(Line(f"    {pod.name}: {state_of(pod)}{f' on {pod.node}' if pod.node else ''}{more}", QUIET))
    return lines

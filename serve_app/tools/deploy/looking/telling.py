"""An observation in lines: all of it, or what has changed since the one before."""

from collections.abc import Iterator
from dataclasses import dataclass

from serve_app.tools.deploy.looking.explaining import Reason
from serve_app.tools.deploy.looking.observation import Application, Cluster, Deployment, Happening, Observation, Pod

EVENTS_SHOWN = 8
TELLING = frozenset({"Pulling", "Pulled", "TriggeredScaleUp", "Nominated", "Launched"})  # among those without a warning

THINGS = ("cluster ", "pods ", "node ")  # of these it is told when they are gone


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    style: str = ""  # rich's; plain output leaves it out


GOOD, BAD, BUSY, QUIET, TITLE = "green", "red", "yellow", "dim", "bold"


def changes(before: Observation | None, now: Observation) -> list[Line]:
    """What a log of the wait should say next."""
    old = dict(_states(before)) if before else {}
    lines = [Line(f"{key}: {value}") for key, value in _states(now) if old.get(key) != value]
    gone = old.keys() - dict(_states(now)).keys()
    lines += [Line(f"{key}: gone") for key in sorted(gone) if key.startswith(THINGS)]
    return lines + [Line(f"event {_event(one)}") for one in _news(before, now)]


def _news(before: Observation | None, now: Observation) -> list[Happening]:
    """At first only what warns of pods that are there: the rest may be of last week."""
    told = [one for one in now.happenings if one.warning or one.reason in TELLING]
    if before is None:
        there = {f"Pod/{pod.name}" for pod in now.pods}
        return [one for one in told if one.warning and one.about in there]
    known = {(one.about, one.reason, one.message) for one in before.happenings}
    return [one for one in told if (one.about, one.reason, one.message) not in known]


def _states(seen: Observation) -> Iterator[tuple[str, str]]:
    for condition in seen.conditions:
        yield f"condition {condition.kind}", f"{condition.status} ({condition.reason})"
    for cluster in seen.clusters:
        yield f"cluster {cluster.name}", cluster.role
    for (cluster_name, group), pods in seen.groups.items():
        yield f"pods of {group}{f' in {cluster_name}' if cluster_name else ''}", _count(pods)
    for cluster in seen.clusters:
        for application in cluster.applications:
            yield f"application {application.name} in {cluster.name}", application.status
            for one in application.deployments:
                yield f"deployment {one.name} in {cluster.name}", one.status
    for machine in seen.machines:
        yield f"node {machine.name}", "ready" if machine.ready else "being added"


def _count(pods: tuple[Pod, ...]) -> str:
    ready = sum(pod.ready for pod in pods)
    doing = sorted({doing_of(pod) for pod in pods if not pod.ready})
    return f"{ready} of {len(pods)} ready" + (f" ({', '.join(doing)})" if doing else "")


def doing_of(pod: Pod) -> str:
    """What a pod that isn't ready is at, in a word or two."""
    if pod.ending:
        return "ending"
    if pod.unschedulable:
        return "waits for a node"
    for container in pod.containers:
        done = container.state == "terminated" and container.exit_code == 0
        if container.init and not done and not (container.state == "running" and container.ready):
            return f"init container {container.name}" + (f" {container.reason}" if container.reason else "")
        if not container.init and container.state != "running":
            return container.reason or container.state
    return "Ready" if pod.ready else {"Running": "starts"}.get(pod.phase, pod.phase)


def _event(one: Happening) -> str:
    times = f" ({one.count} times)" if one.count > 1 else ""
    return f"{one.reason} {one.about}: {' '.join(one.message.split())}{times}"


def report(seen: Observation, reasons: tuple[Reason, ...] = ()) -> list[Line]:
    """All of it, from what matters most."""
    lines = [_headline(seen), *_reason_lines(reasons), *address_lines(seen)]
    for cluster in seen.clusters:
        lines += _cluster_lines(cluster)
    lines += _pod_lines(seen)
    lines += [
        Line(f"  {one.kind}: {one.status} ({one.reason}) {one.message}".rstrip(), QUIET) for one in seen.conditions
    ]
    if shown := [one for one in seen.happenings if one.warning or one.reason in TELLING][-EVENTS_SHOWN:]:
        lines.append(Line("events", TITLE))
        lines += [Line(f"  {one.at} {_event(one)}".rstrip(), BUSY if one.warning else QUIET) for one in shown]
    lines += [Line(f"not shown: {what}", QUIET) for what in seen.unread]
    return lines


def _headline(seen: Observation) -> Line:
    about = f"RayService {seen.target}"
    if not seen.exists:
        return Line(f"{about}: not there", BAD)
    if seen.ending:
        return Line(f"{about}: is being deleted", BUSY)
    ways = f"{seen.endpoints} endpoint{'' if seen.endpoints == 1 else 's'}"
    if seen.done:
        return Line(f"{about}: serving, {ways}", GOOD)
    if seen.serving:
        upgrading = seen.holds("UpgradeInProgress")
        return Line(f"{about}: serving, {ways}, {'upgrading' if upgrading else 'a change is on its way'}", BUSY)
    return Line(f"{about}: not serving, {ways}", BAD)


def _reason_lines(reasons: tuple[Reason, ...]) -> list[Line]:
    return [Line("why", TITLE), *(Line(f"  {reason}", BAD) for reason in reasons)] if reasons else []


def address_lines(seen: Observation) -> list[Line]:
    lines = [Line("addresses", TITLE)] if seen.addresses else []
    for one in seen.addresses:
        where = one.url or "none yet: AWS is making the load balancer"
        lines.append(
            Line(f"  {one.service} {one.port}: {where}" + (" (in the cluster)" if one.kind == "ClusterIP" else ""))
        )
    return lines


def _cluster_lines(cluster: Cluster) -> list[Line]:
    lines = [Line(f"{cluster.role} cluster {cluster.name}", TITLE)]
    for application in cluster.applications:
        lines.append(_state_line(f"  application {application.name}", application))
        lines += [_state_line(f"    {one.name}", one, _replicas(one)) for one in application.deployments]
    return lines


def _replicas(deployment: Deployment) -> str:
    if deployment.running is None:
        return ""
    wanted = "" if deployment.wanted is None else f" of {deployment.wanted}"
    return f", {deployment.running}{wanted} replicas"


def _state_line(title: str, one: Application | Deployment, more: str = "") -> Line:
    style = GOOD if one.status in ("RUNNING", "HEALTHY") else BAD if "FAILED" in one.status else BUSY
    return Line(f"{title}: {one.status}{more}", BAD if one.status == "UNHEALTHY" else style)


def _pod_lines(seen: Observation) -> list[Line]:
    lines = [Line("pods", TITLE)] if seen.pods else []
    for (cluster, group), pods in seen.groups.items():
        ready = all(pod.ready for pod in pods)
        lines.append(Line(f"  {group}{f' of {cluster}' if cluster else ''}: {_count(pods)}", GOOD if ready else BUSY))
        for pod in pods:
            restarts = sum(one.restarts for one in pod.containers)
            more = f", {restarts} restarts" if restarts else ""
            lines.append(Line(f"    {pod.name}: {doing_of(pod)}{f' on {pod.node}' if pod.node else ''}{more}", QUIET))
    return lines

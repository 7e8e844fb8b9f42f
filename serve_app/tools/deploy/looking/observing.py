"""Reads one observation of a deployment; what may not be read is left out and said."""

from collections.abc import Callable
from typing import Any

from serve_app.errors import ForbiddenError, ServeAppError
from serve_app.tools.deploy.api.objects import Objects
from serve_app.tools.deploy.api.target import INSTANCE_LABEL, RAY_API, Target
from serve_app.tools.deploy.looking.observation import (
    Address,
    Application,
    Cluster,
    Condition,
    Container,
    Deployment,
    Happening,
    Machine,
    Observation,
    Pod,
)

LOG_LINES = 8
LOGS_READ = 3  # of pods that crash: the first few tell
WEB_PORTS = {"serve": "http", "http": "http", "https": "https", "serve-https": "https"}

Content = dict[str, Any]


def observe(objects: Objects, target: Target) -> Observation:
    service = objects.get(RAY_API, "RayService", target.name, target.namespace)
    unread: list[str] = []

    def allowed(what: str, read: Callable[[], list[Content]]) -> list[Content]:
        try:
            return read()
        except ForbiddenError:
            unread.append(f"{what}: you may not list them")
            return []

    rayclusters = allowed("RayClusters", lambda: objects.list(RAY_API, "RayCluster", target.namespace))
    pods = allowed("pods", lambda: objects.list("v1", "Pod", target.namespace))
    events = allowed("events", lambda: objects.list("v1", "Event", target.namespace))
    services = allowed("services", lambda: objects.list("v1", "Service", target.namespace))
    claims = allowed("Karpenter's nodes", lambda: objects.list("karpenter.sh/v1", "NodeClaim"))
    # Karpenter takes a claim away that can't be had; its events stay
    nodes = "involvedObject.kind=NodeClaim"
    events += allowed("events of nodes", lambda: objects.list("v1", "Event", "default", fields=nodes))
    status = (service or {}).get("status") or {}
    metadata = (service or {}).get("metadata") or {}
    return Observation(
        target=target,
        exists=service is not None,
        ending="deletionTimestamp" in metadata,
        generation=metadata.get("generation", 0),
        seen_generation=status.get("observedGeneration", 0),
        endpoints=status.get("numServeEndpoints", 0),
        conditions=conditions_of(status),
        clusters=clusters_of(status, [one for one in rayclusters if target.owns_cluster(one["metadata"]["name"])]),
        pods=read_pods(objects, target, pods),
        happenings=tuple(happening_of(one) for one in sorted(events, key=_time_of) if _concerns(one, target)),
        addresses=tuple(address for one in services for address in addresses_of(one) if _offers(one, address, target)),
        machines=tuple(machine_of(one) for one in claims),
        unread=tuple(unread),
    )


def conditions_of(status: Content) -> tuple[Condition, ...]:
    return tuple(
        Condition(one["type"], one["status"], one.get("reason", ""), one.get("message", ""))
        for one in status.get("conditions") or []
    )


def clusters_of(status: Content, rayclusters: list[Content]) -> tuple[Cluster, ...]:
    """Those that the RayService names, and those it left, which end after a while."""
    found = []
    for role in ("active", "pending"):
        part = status.get(f"{role}ServiceStatus") or {}
        if name := part.get("rayClusterName"):
            found.append(Cluster(name, role, applications_of(part.get("applicationStatuses") or {})))
    named = {one.name for one in found}
    old = [one["metadata"]["name"] for one in rayclusters if one["metadata"]["name"] not in named]
    return (*found, *(Cluster(name, "old") for name in sorted(old)))


def applications_of(statuses: Content) -> tuple[Application, ...]:
    return tuple(
        Application(
            name,
            one.get("status", ""),
            one.get("message", ""),
            tuple(
                Deployment(below, state.get("status", ""), state.get("message", ""))
                for below, state in sorted((one.get("serveDeploymentStatuses") or {}).items())
            ),
        )
        for name, one in sorted(statuses.items())
    )


def read_pods(objects: Objects, target: Target, items: list[Content]) -> tuple[Pod, ...]:
    budget = [LOGS_READ]

    def last_lines(pod: str, container: str) -> tuple[str, ...]:
        if not budget[0]:
            return ()
        budget[0] -= 1
        path = objects.kind("v1", "Pod").path(target.namespace, pod) + "/log"
        query: dict[str, str | int | bool] = {"container": container, "previous": True, "tailLines": LOG_LINES}
        try:
            return tuple(objects.connection.text(path, query).splitlines())
        except ServeAppError:
            return ()  # a log that is gone or forbidden explains nothing, and stops nothing

    return tuple(pod_of(one, last_lines) for one in items if target.owns(one))


def pod_of(pod: Content, last_lines: Callable[[str, str], tuple[str, ...]]) -> Pod:
    metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    labels = metadata.get("labels") or {}
    conditions = {one["type"]: one for one in status.get("conditions") or []}
    scheduled = conditions.get("PodScheduled") or {}
    head = labels.get("ray.io/node-type") == "head"
    group = "head" if head else labels.get("ray.io/group") or labels.get("app.kubernetes.io/component") or "other"
    return Pod(
        name=metadata["name"],
        group=group,
        cluster=labels.get("ray.io/cluster", ""),
        phase=status.get("phase", "Pending"),
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        ending="deletionTimestamp" in metadata,
        node=spec.get("nodeName", ""),
        address=status.get("podIP", ""),
        made=metadata.get("creationTimestamp", ""),
        unschedulable=scheduled.get("message", "") if scheduled.get("status") == "False" else "",
        containers=tuple(
            container_of(one, init, metadata["name"], last_lines)
            for init, part in ((True, "initContainerStatuses"), (False, "containerStatuses"))
            for one in status.get(part) or []
        ),
    )


def container_of(status: Content, init: bool, pod: str, last_lines: Callable[[str, str], tuple[str, ...]]) -> Container:
    state, now = next(iter((status.get("state") or {"waiting": {}}).items()))
    last = (status.get("lastState") or {}).get("terminated") or {}
    crashes = (now or {}).get("reason") == "CrashLoopBackOff"
    return Container(
        name=status["name"],
        image=status.get("image", ""),
        init=init,
        ready=bool(status.get("ready")),
        state=state,
        reason=(now or {}).get("reason", ""),
        message=(now or {}).get("message", ""),
        exit_code=(now or {}).get("exitCode"),
        restarts=status.get("restartCount", 0),
        last_reason=last.get("reason", ""),
        last_exit_code=last.get("exitCode"),
        last_lines=last_lines(pod, status["name"]) if crashes else (),
    )


def _concerns(event: Content, target: Target) -> bool:
    about = event.get("involvedObject") or {}
    name, kind = about.get("name", ""), about.get("kind", "")
    return bool(kind == "NodeClaim" or name == target.name or name.startswith(f"{target.name}-"))


def _time_of(event: Content) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")


def happening_of(event: Content) -> Happening:
    about = event.get("involvedObject") or {}
    return Happening(
        about=f"{about.get('kind', '?')}/{about.get('name', '?')}",
        reason=event.get("reason", ""),
        message=(event.get("message") or "").strip(),
        warning=event.get("type") == "Warning",
        at=_time_of(event),
        count=event.get("count") or 1,
    )


def _offers(service: Content, address: Address, target: Target) -> bool:
    """What people call: the service, the dashboard, and whatever load balancer was put in front."""
    if address.service == target.head_service:
        return address.port == "dashboard"
    ours = (service["metadata"].get("labels") or {}).get(INSTANCE_LABEL) == target.name
    return address.service == target.serve_service or (ours and address.kind == "LoadBalancer")


def addresses_of(service: Content) -> tuple[Address, ...]:
    """Of a load balancer its own names, once it has some; else the one inside the cluster."""
    name, spec = service["metadata"]["name"], service.get("spec") or {}
    kind = spec.get("type", "ClusterIP")
    hosts = [f"{name}.{service['metadata'].get('namespace', 'default')}.svc"]
    if kind == "LoadBalancer":
        ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
        hosts = [one.get("hostname") or one.get("ip") or "" for one in ingress]
    found = []
    for port in spec.get("ports") or []:
        label = port.get("name") or str(port["port"])
        scheme = f"{WEB_PORTS[label]}://" if label in WEB_PORTS else ""
        urls = [f"{scheme}{host}:{port['port']}" for host in hosts if host]
        found += [Address(name, label, url, kind) for url in urls or [""]]
    return tuple(found)


def machine_of(claim: Content) -> Machine:
    metadata, conditions = claim["metadata"], conditions_of(claim.get("status") or {})
    bad = [one.message or one.reason for one in conditions if one.status == "False" and (one.message or one.reason)]
    return Machine(
        name=metadata["name"],
        instance_type=(metadata.get("labels") or {}).get("node.kubernetes.io/instance-type", ""),
        ready=any(one.kind == "Ready" and one.holds for one in conditions),
        problem="; ".join(bad),
    )

"""Reads the status of a service from the cluster; what the user may not list is noted as unreadable."""

from collections.abc import Callable
from typing import Any

from serve_app.errors import ForbiddenError, ServeAppError
from serve_app.tools.deploy.api.objects import Objects
from serve_app.tools.deploy.api.target import INSTANCE_LABEL, RAY_API, Target
from serve_app.tools.deploy.status.model import (
    Address,
    Application,
    Cluster,
    Condition,
    Container,
    Deployment,
    Event,
    Node,
    Pod,
    ServiceStatus,
)

LOG_LINES = 8
LOGS_READ = 3  # of crashing pods; the first few are enough
WEB_PORTS = {"serve": "http", "http": "http", "https": "https", "serve-https": "https"}

Content = dict[str, Any]


def read_status(objects: Objects, target: Target) -> ServiceStatus:
    service = objects.get(RAY_API, "RayService", target.name, target.namespace)
    unreadable: list[str] = []

    def allowed(what: str, read: Callable[[], list[Content]]) -> list[Content]:
        try:
            return read()
        except ForbiddenError:
            unreadable.append(f"{what}: you may not list them")
            return []

    rayclusters = allowed("RayClusters", lambda: objects.list(RAY_API, "RayCluster", target.namespace))
    pods = allowed("pods", lambda: objects.list("v1", "Pod", target.namespace))
    events = allowed("events", lambda: objects.list("v1", "Event", target.namespace))
    services = allowed("services", lambda: objects.list("v1", "Service", target.namespace))
    claims = allowed("Karpenter nodes", lambda: objects.list("karpenter.sh/v1", "NodeClaim"))
    # Karpenter deletes a NodeClaim that it can't launch; its events remain
    of_nodes = "involvedObject.kind=NodeClaim"
    events += allowed("node events", lambda: objects.list("v1", "Event", "default", fields=of_nodes))
    status = (service or {}).get("status") or {}
    metadata = (service or {}).get("metadata") or {}
    return ServiceStatus(
        target=target,
        exists=service is not None,
        deleting="deletionTimestamp" in metadata,
        generation=metadata.get("generation", 0),
        observed_generation=status.get("observedGeneration", 0),
        endpoints=status.get("numServeEndpoints", 0),
        conditions=conditions_of(status),
        clusters=clusters_of(status, [one for one in rayclusters if target.owns_cluster(one["metadata"]["name"])]),
        pods=read_pods(objects, target, pods),
        events=tuple(event_of(one) for one in sorted(events, key=_time_of) if _concerns(one, target, metadata)),
        addresses=tuple(port for one in services for port in addresses_of(one) if _is_public(one, port, target)),
        nodes=tuple(node_of(one) for one in claims),
        unreadable=tuple(unreadable),
    )


def conditions_of(status: Content) -> tuple[Condition, ...]:
    return tuple(
        Condition(one["type"], one["status"], one.get("reason", ""), one.get("message", ""))
        for one in status.get("conditions") or []
    )


def clusters_of(status: Content, rayclusters: list[Content]) -> tuple[Cluster, ...]:
    """The active and the pending one, and old ones that KubeRay deletes after a delay."""
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
            return ()  # the log is gone or forbidden; the rest of the status is still useful

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
        deleting="deletionTimestamp" in metadata,
        node=spec.get("nodeName", ""),
        created=metadata.get("creationTimestamp", ""),
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


def _concerns(event: Content, target: Target, service: Content) -> bool:
    """Not those of an earlier service of the same name, which the cluster keeps for an hour."""
    about = event.get("involvedObject") or {}
    name, kind = about.get("name", ""), about.get("kind", "")
    ours = name == target.name or name.startswith(f"{target.name}-")
    since = str(service.get("creationTimestamp") or "")
    return bool(kind == "NodeClaim" or (ours and _time_of(event)[: len(since)] >= since.rstrip("Z")))


def _time_of(event: Content) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")


def event_of(event: Content) -> Event:
    about = event.get("involvedObject") or {}
    return Event(
        about=f"{about.get('kind', '?')}/{about.get('name', '?')}",
        reason=event.get("reason", ""),
        message=(event.get("message") or "").strip(),
        warning=event.get("type") == "Warning",
        at=_time_of(event),
        count=event.get("count") or 1,
    )


def _is_public(service: Content, address: Address, target: Target) -> bool:
    """Whether clients call it: the serve Service, the dashboard, and the load balancer."""
    if address.service == target.head_service:
        return address.port == "dashboard"
    ours = (service["metadata"].get("labels") or {}).get(INSTANCE_LABEL) == target.name
    return address.service == target.serve_service or (ours and address.kind == "LoadBalancer")


def addresses_of(service: Content) -> tuple[Address, ...]:
    """A load balancer's host names once AWS has assigned them, else the DNS name inside the cluster."""
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


def node_of(claim: Content) -> Node:
    metadata, conditions = claim["metadata"], conditions_of(claim.get("status") or {})
    bad = [one.message or one.reason for one in conditions if one.status == "False" and (one.message or one.reason)]
    return Node(
        name=metadata["name"],
        instance_type=(metadata.get("labels") or {}).get("node.kubernetes.io/instance-type", ""),
        ready=any(one.type == "Ready" and one.is_true for one in conditions),
        problem="; ".join(bad),
    )

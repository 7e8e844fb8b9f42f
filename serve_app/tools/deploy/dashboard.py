"""Ray's dashboard in the head pod: Serve's replicas and their logs, read through a tunnel with Ray's token."""

import base64
import dataclasses
import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

from serve_app.errors import ForbiddenError, NotFoundError, ServeAppError, UnavailableError
from serve_app.tools.deploy import ports
from serve_app.tools.deploy.api.objects import Objects
from serve_app.tools.deploy.api.target import Target
from serve_app.tools.deploy.api.tunnel import open_tunnel, ready_pods
from serve_app.tools.deploy.status.model import Application, Deployment, ServiceStatus

TOKEN_KEY = "auth_token"  # in the Secret that KubeRay names after the RayCluster
TIMEOUT_S = 10

Content = dict[str, Any]


class Dashboard:
    def __init__(self, objects: Objects, target: Target, cluster: str) -> None:
        self._objects = objects
        self._target = target
        self._cluster = cluster

    def applications(self) -> Content:
        answer = json.loads(b"".join(self.read("/api/serve/applications/")))
        return dict(answer.get("applications") or {})

    def read(self, path: str, timeout_s: float | None = TIMEOUT_S) -> Iterator[bytes]:
        """Chunks as they arrive; an endless answer ends when the iterator is closed."""
        pods = ready_pods(self._objects, self._target, ports.DASHBOARD)
        if not pods:
            raise UnavailableError("Ray's dashboard: the head pod isn't ready")
        tunnel = open_tunnel(self._objects.connection, self._target.namespace, pods[0], ports.DASHBOARD)
        tunnel.socket.settimeout(timeout_s)
        connection = http.client.HTTPConnection("localhost", ports.DASHBOARD)
        connection.sock = tunnel.socket
        try:
            connection.request("GET", path, headers=self._authorization())
            answer = connection.getresponse()
            if answer.status != 200:
                raise UnavailableError(f"Ray's dashboard answered {answer.status} to {path.partition('?')[0]}")
            while chunk := answer.read1(65536):
                yield chunk
        except (OSError, http.client.HTTPException) as problem:
            raise UnavailableError(f"Ray's dashboard: {tunnel.problem or problem or type(problem).__name__}") from None
        finally:
            connection.close()

    def _authorization(self) -> dict[str, str]:
        try:
            secret = self._objects.get("v1", "Secret", self._cluster, self._target.namespace)
        except ForbiddenError:
            raise ForbiddenError(f"Ray's dashboard: you may not read its token in Secret {self._cluster}") from None
        token = ((secret or {}).get("data") or {}).get(TOKEN_KEY)
        return {"Authorization": f"Bearer {base64.b64decode(token).decode()}"} if token else {}


def with_replicas(objects: Objects, seen: ServiceStatus) -> ServiceStatus:
    """Adds replica counts, which only the dashboard knows, or the reason why it can't be read."""
    active = seen.cluster("active")
    if active is None:
        return seen
    try:
        found = Dashboard(objects, seen.target, active.name).applications()
    except (ServeAppError, ValueError) as problem:
        return dataclasses.replace(seen, unreadable=(*seen.unreadable, f"replicas: {problem}"))
    applications = tuple(_with_counts(one, found.get(one.name) or {}) for one in active.applications)
    counted = dataclasses.replace(active, applications=applications)
    clusters = tuple(counted if one is active else one for one in seen.clusters)
    return dataclasses.replace(seen, clusters=clusters)


def _with_counts(application: Application, details: Content) -> Application:
    known = details.get("deployments") or {}
    deployments = tuple(_counted(one, known[one.name]) if one.name in known else one for one in application.deployments)
    return dataclasses.replace(application, deployments=deployments)


def _counted(deployment: Deployment, details: Content) -> Deployment:
    replicas = details.get("replicas") or []
    running = sum(one.get("state") == "RUNNING" for one in replicas)
    return dataclasses.replace(deployment, running=running, wanted=details.get("target_num_replicas"))


@dataclasses.dataclass(frozen=True, slots=True)
class ReplicaLog:
    """The log file of one replica."""

    replica: str
    node: str
    file: str

    def path(self, tail: int, follow: bool) -> str:
        query = {"node_id": self.node, "filename": self.file.lstrip("/"), "lines": tail}
        if follow:
            query["interval"] = 1
        return f"/api/v0/logs/{'stream' if follow else 'file'}?{urlencode(query)}"


def replica_logs(applications: Content, deployment: str) -> list[ReplicaLog]:
    known = {name: one for details in applications.values() for name, one in (details.get("deployments") or {}).items()}
    if deployment not in known:
        raise NotFoundError(f"no Serve deployment {deployment!r}; known: {', '.join(sorted(known)) or 'none'}")
    return [
        ReplicaLog(one["replica_id"], one["node_id"], one["log_file_path"])
        for one in known[deployment].get("replicas") or []
        if one.get("node_id") and one.get("log_file_path")
    ]

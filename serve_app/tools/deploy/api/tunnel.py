"""Byte streams to ports of pods through the API server, as `kubectl port-forward` opens them."""

import socket
import threading
from concurrent.futures import Future
from typing import Any, Self

from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward

from serve_app.errors import UnavailableError
from serve_app.tools.deploy import ports
from serve_app.tools.deploy.api.connection import Connection
from serve_app.tools.deploy.api.objects import Objects
from serve_app.tools.deploy.api.target import RAY_API, Target

OPEN_TIMEOUT_S = 15.0


class Tunnel:
    """A connected socket, and the error that the pod's node reports if nothing listens on the port."""

    def __init__(self, forward: Any, port: int) -> None:
        wrapped = forward.socket(port)  # not a real socket: it has no context manager
        self.socket = socket.fromfd(wrapped.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)
        wrapped.close()
        self._forward = forward
        self._port = port

    @property
    def problem(self) -> str:
        return (self._forward.error(self._port) or "").rpartition(": ")[2]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the websocket too."""
        self.socket.close()


def open_tunnel(connection: Connection, namespace: str, pod: str, port: int) -> Tunnel:
    """In a thread: the client waits for a websocket without a timeout, and reports Ctrl-C as a refusal."""
    opened: Future[Any] = Future()

    def open_it() -> None:
        try:
            api = connection.new_core_api()
            opened.set_result(portforward(api.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port)))
        except Exception as problem:
            opened.set_exception(problem)

    threading.Thread(target=open_it, daemon=True).start()
    try:
        return Tunnel(opened.result(OPEN_TIMEOUT_S), port)
    except ApiException as problem:
        raise UnavailableError(f"can't connect to port {port} of pod {pod}: {_reason(problem)}") from None
    except TimeoutError:
        opened.add_done_callback(_close_late)
        raise UnavailableError(
            f"can't connect to port {port} of pod {pod}: no answer within {OPEN_TIMEOUT_S:g} s"
        ) from None


def _close_late(opened: Future[Any]) -> None:
    if opened.exception() is None:
        opened.result().close()


def _reason(problem: ApiException) -> str:
    """The websocket library appends the answer's headers and body to the status."""
    lines = str(problem.reason or "").split("-+-+-")[0].strip().splitlines()
    return lines[0] if lines else "no reason given"


def ready_pods(objects: Objects, target: Target, port: int) -> list[str]:
    """Pods that answer on a port: the head for the dashboard, else those behind the serve Service."""
    cluster = active_cluster(objects, target)
    if not cluster:
        return []
    labels = "ray.io/node-type=head" if port == ports.DASHBOARD else "ray.io/serve=true"
    pods = objects.list("v1", "Pod", target.namespace, f"ray.io/cluster={cluster},{labels}")
    return [one["metadata"]["name"] for one in pods if _is_ready(one)]


def active_cluster(objects: Objects, target: Target) -> str:
    """The RayCluster that serves; empty while there is none."""
    service = objects.get(RAY_API, "RayService", target.name, target.namespace) or {}
    return str(((service.get("status") or {}).get("activeServiceStatus") or {}).get("rayClusterName") or "")


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]

"""Byte streams to ports of pods, through the API server: what `kubectl port-forward` opens."""

import socket
import threading
from collections.abc import Sequence
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

Content = dict[str, Any]


class Channel:
    """A connected socket, and what the pod's machine says where nobody is behind it."""

    def __init__(self, forward: Any, port: int) -> None:
        wrapped = forward.socket(port)  # not quite a socket: it can't be used in `with`
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
        """Ends the websocket too."""
        self.socket.close()


def open_channel(connection: Connection, namespace: str, pod: str, port: int) -> Channel:
    """In a thread of its own: the client waits for a websocket without end, and takes a Ctrl-C for a refusal."""
    opened: Future[Any] = Future()

    def open_it() -> None:
        try:
            api = connection.new_core_api()
            opened.set_result(portforward(api.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port)))
        except Exception as problem:
            opened.set_exception(problem)

    threading.Thread(target=open_it, daemon=True).start()
    try:
        return Channel(opened.result(OPEN_TIMEOUT_S), port)
    except ApiException as problem:
        raise UnavailableError(f"pod {pod} gives no way to its port {port}: {_reason(problem)}") from None
    except TimeoutError:
        opened.add_done_callback(_close_late)
        raise UnavailableError(
            f"pod {pod} gives no way to its port {port}: no answer within {OPEN_TIMEOUT_S:g} s"
        ) from None


def _close_late(opened: Future[Any]) -> None:
    if opened.exception() is None:
        opened.result().close()


def _reason(problem: ApiException) -> str:
    """The websocket library puts headers and body of the answer after the status."""
    lines = str(problem.reason or "").split("-+-+-")[0].strip().splitlines()
    return lines[0] if lines else "it isn't said why"


def pods_for(objects: Objects, target: Target, port: int) -> list[str]:
    """Ready pods that answer on a port: the head for the dashboard, else those behind the serve Service."""
    service = objects.get(RAY_API, "RayService", target.name, target.namespace) or {}
    active = ((service.get("status") or {}).get("activeServiceStatus") or {}).get("rayClusterName")
    if not active:
        return []
    labels = "ray.io/node-type=head" if port == ports.DASHBOARD else "ray.io/serve=true"
    pods = objects.list("v1", "Pod", target.namespace, f"ray.io/cluster={active},{labels}")
    return [one["metadata"]["name"] for one in ready_ones(pods)]


def ready_ones(pods: Sequence[Content]) -> list[Content]:
    return [one for one in pods if "deletionTimestamp" not in one["metadata"] and _is_ready(one)]


def _is_ready(pod: Content) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

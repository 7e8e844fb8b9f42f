"""Forwards local ports to the service's pods; each new connection goes to a pod that is ready then."""

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.errors import ConfigurationError, ServeAppError, UnavailableError
from serve_app.tools.deploy.api.objects import Objects
from serve_app.tools.deploy.api.target import Target
from serve_app.tools.deploy.api.tunnel import Tunnel, open_tunnel, ready_pods

CHUNK = 1 << 16
READY_TIMEOUT_S = 30.0  # how long a connection waits for a ready pod, as when a pod is replaced
RETRY_S = 0.5
AFTER_EOF_S = 5.0  # how long an answer may take after the caller closed its side
MAX_CONNECTIONS = 200  # the client's websockets use select(), which ends at file descriptor 1023


@dataclass(frozen=True, slots=True)
class Route:
    """`local` 0: any free port."""

    title: str
    local: int
    remote: int


class Forwarder:
    def __init__(
        self, objects: Objects, target: Target, say: Callable[[str], None], address: str = "127.0.0.1"
    ) -> None:
        self._objects = objects
        self._target = target
        self._say = say
        self._address = address
        self._last: dict[int, str] = {}
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def listen(self, route: Route) -> socket.socket:
        try:
            listener = socket.create_server((self._address, route.local), backlog=128)
        except OSError as problem:
            reason = (os.strerror(problem.errno) if problem.errno else str(problem)).lower()
            raise ConfigurationError(
                f"port {route.local} for {route.title}: {reason}; use --{route.title} PORT (0: any free port)"
            ) from None
        host, port = listener.getsockname()[:2]
        self._say(f"{route.title}: {host}:{port} → port {route.remote} of {self._target}")
        return listener

    def serve(self, routes: list[Route]) -> None:
        """Until interrupted."""
        with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
            for route in routes:
                selector.register(stack.enter_context(self.listen(route)), selectors.EVENT_READ, route)
            while True:
                for key, _ in selector.select():
                    self._free.acquire()
                    caller, _ = key.fileobj.accept()  # type: ignore[union-attr]
                    threading.Thread(target=self._forward, args=(caller, key.data), daemon=True).start()

    def _forward(self, caller: socket.socket, route: Route) -> None:
        try:
            with caller, self._connect(route) as tunnel:
                copy_both_ways(caller, tunnel.socket)
                if tunnel.problem:
                    self._say(f"{route.title}: port {route.remote} of {self._last.get(route.remote)}: {tunnel.problem}")
        except ServeAppError as problem:
            self._say(f"{route.title}: connection closed: {problem}")
        finally:
            self._free.release()

    def _connect(self, route: Route) -> Tunnel:
        """A tunnel to a ready pod, preferably the previous one; retries while there is none."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            problem: ServeAppError = UnavailableError(f"no pod of {self._target} is ready")
            try:
                for pod in self._in_order(ready_pods(self._objects, self._target, route.remote), route):
                    try:
                        tunnel = open_tunnel(self._objects.connection, self._target.namespace, pod, route.remote)
                    except UnavailableError as refusal:
                        problem = refusal
                        continue
                    self._remember(route, pod)
                    return tunnel
            except UnavailableError as unavailable:
                problem = unavailable
            if time.monotonic() > deadline:
                raise problem
            time.sleep(RETRY_S)

    def _in_order(self, pods: list[str], route: Route) -> list[str]:
        return sorted(pods, key=lambda pod: pod != self._last.get(route.remote))

    def _remember(self, route: Route, pod: str) -> None:
        with self._lock:
            if self._last.get(route.remote) != pod:
                connected = "reconnected" if route.remote in self._last else "connected"
                self._last[route.remote] = pod
                self._say(f"{route.title}: {connected} to pod {pod}")


def copy_both_ways(caller: socket.socket, tunnel: socket.socket) -> None:
    """Until either side closes; a pod may still answer for a while after the caller closed its side."""
    answers = threading.Thread(target=_pump, args=(tunnel, caller), daemon=True)
    answers.start()
    _pump(caller, tunnel, end=False)  # a websocket can't be half-closed
    answers.join(AFTER_EOF_S)
    with contextlib.suppress(OSError):
        tunnel.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, sink: socket.socket, end: bool = True) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(CHUNK):
            sink.sendall(chunk)
    if end:
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

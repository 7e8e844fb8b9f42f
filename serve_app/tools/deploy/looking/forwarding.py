"""Local ports that lead to the service's pods, each connection to one that is ready when it comes."""

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
from serve_app.tools.deploy.looking.channels import Channel, open_channel, pods_for

CHUNK = 1 << 16
PATIENCE_S = 30.0  # how long a caller waits for a pod, as while one takes the place of another
RETRY_S = 0.5
AFTER_EOF_S = 5.0  # how long an answer may still come once its caller has said all, or is gone
MOST = 200  # connections at once; the client's websockets can't wait on file numbers over 1023


@dataclass(frozen=True, slots=True)
class Route:
    """`local` 0 takes any free port."""

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
        self._free = threading.BoundedSemaphore(MOST)

    def listen(self, route: Route) -> socket.socket:
        try:
            listener = socket.create_server((self._address, route.local), backlog=128)
        except OSError as problem:
            reason = (os.strerror(problem.errno) if problem.errno else str(problem)).lower()
            raise ConfigurationError(
                f"port {route.local} for {route.title}: {reason}; take another with --{route.title} PORT (0: any)"
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
                    threading.Thread(target=self._carry, args=(caller, key.data), daemon=True).start()

    def _carry(self, caller: socket.socket, route: Route) -> None:
        try:
            with caller, self._reach(route) as channel:
                carry(caller, channel.socket)
                if channel.problem:
                    self._say(
                        f"{route.title}: port {route.remote} of {self._last.get(route.remote)}: {channel.problem}"
                    )
        except ServeAppError as problem:
            self._say(f"{route.title}: a connection is closed: {problem}")
        finally:
            self._free.release()

    def _reach(self, route: Route) -> Channel:
        """Any pod that is ready, the one before first; asks again while none is."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            problem: ServeAppError = UnavailableError(f"no pod of {self._target} is ready for port {route.remote}")
            try:
                for pod in self._in_order(pods_for(self._objects, self._target, route.remote), route):
                    try:
                        channel = open_channel(self._objects.connection, self._target.namespace, pod, route.remote)
                    except UnavailableError as refusal:
                        problem = refusal
                        continue
                    self._remember(route, pod)
                    return channel
            except UnavailableError as away:
                problem = away
            if time.monotonic() > deadline:
                raise problem
            time.sleep(RETRY_S)

    def _in_order(self, pods: list[str], route: Route) -> list[str]:
        return sorted(pods, key=lambda pod: pod != self._last.get(route.remote))

    def _remember(self, route: Route, pod: str) -> None:
        with self._lock:
            if self._last.get(route.remote) != pod:
                again = "again " if route.remote in self._last else ""
                self._last[route.remote] = pod
                self._say(f"{route.title}: connected {again}to pod {pod}")


def carry(caller: socket.socket, channel: socket.socket) -> None:
    """Bytes both ways until the pod has said all, or the caller is gone."""
    answers = threading.Thread(target=_pump, args=(channel, caller), daemon=True)
    answers.start()
    _pump(caller, channel, end=False)  # a websocket has no half that could be closed
    answers.join(AFTER_EOF_S)
    with contextlib.suppress(OSError):
        channel.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, sink: socket.socket, end: bool = True) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(CHUNK):
            sink.sendall(chunk)
    if end:
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)

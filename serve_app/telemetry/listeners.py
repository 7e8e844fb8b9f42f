"""On which addresses Serve's processes listen: Serve says all, and where Ray itself is on loopback, so are they."""

import socket
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import ray

LOOPBACK = "127.0.0.1"


@cache
def listen_where_ray_does() -> None:
    """Handles and HAProxy use the address of a node, so processes on one that has loopback for it need no other.

    Serve has no setting for this, and what passes between deployments is pickles, which run whatever a stranger sends.
    Replicas call it when they begin, and Serve's own proxy as RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH.
    """
    if ray.is_initialized() and ray.util.get_node_ip_address() == LOOPBACK:
        # Imported here: a process of Serve's has them already, and any other would wait for a second.
        from ray.serve._private import default_impl, http_util, replica

        replica.add_port_to_grpc_server = _on_loopback(replica.add_port_to_grpc_server)
        default_impl.add_grpc_address = _on_loopback(default_impl.add_grpc_address)
        http_util.socket = SimpleNamespace(**vars(socket) | {"socket": LocalSocket})


def _on_loopback(add_port: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    return lambda server, address: add_port(server, f"{LOOPBACK}:{address.rpartition(':')[2]}")


class LocalSocket(socket.socket):
    """Binds to loopback, whatever it is told."""

    def bind(self, address: Any) -> None:
        local = LOOPBACK if self.family == socket.AF_INET else f"::ffff:{LOOPBACK}"
        super().bind((local, *address[1:]))

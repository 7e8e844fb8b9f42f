import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest


@pytest.fixture
def echo(kubernetes):
    """What the pods' ports lead to: sends back what it gets, until its caller closes or sends `end`."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def answer(connection):
        with connection:
            while data := connection.recv(1 << 16):
                connection.sendall(data)
                if data.endswith(b"end"):
                    return

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    port = listener.getsockname()[1]
    kubernetes.control(portforward={"8000": port, "8001": port, "8265": port})
    yield port
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def forward(deploy, up):
    """The command, running on free ports; `forward.port(title)` is one of them."""
    running = deploy.start("port-forward", "local-cpu", "--http", "0", "--grpc", "0", "--dashboard", "0")
    running.port = lambda title: int(running.wait_for(rf"^{title}: 127\.0\.0\.1:(\d+) ")[1])
    return running


def ask(port, data):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as caller:
        caller.sendall(data + b"end")
        found = b""
        while chunk := caller.recv(1 << 16):
            found += chunk
        return found


def test_three_ports_are_forwarded_until_interrupted(forward, echo, kubernetes):
    for title in ("http", "grpc", "dashboard"):
        assert ask(forward.port(title), title.encode()) == title.encode() + b"end"
        forward.wait_for(rf"^{title}: connected to pod serve-app-.*-head-")
    with socket.create_server(("127.0.0.1", 0)) as free:
        unused = free.getsockname()[1]
    kubernetes.control(portforward={"8265": unused})
    with socket.create_connection(("127.0.0.1", forward.port("dashboard")), timeout=60) as caller:
        caller.sendall(b"is anybody there?")
        assert caller.recv(10) == b"", "nothing listens there any more"
    forward.wait_for(r"^dashboard: port 8265 of serve-app-.*: connection refused$")
    texts = [bytes([number]) * 200_000 for number in range(1, 33)]
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda text: ask(forward.port("http"), text), texts))
    assert answers == [text + b"end" for text in texts]
    ended = forward.interrupt()
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.endswith("stopped")


def test_new_connections_follow_a_new_pod_and_a_new_cluster(deploy, forward, echo, kubernetes):
    port = forward.port("http")
    assert ask(port, b"x") == b"xend"
    first = forward.wait_for(r"^http: connected to pod (\S+)")[1]
    kubernetes.control(delete_pod="head")
    assert ask(port, b"again") == b"againend", "waits for the new pod"
    second = forward.wait_for(r"^http: reconnected to pod (\S+)")[1]
    assert second != first
    assert deploy("upgrade", "local-cpu", "--set", "images.tag=0.2.0").status == 0
    (cluster,) = kubernetes.objects("RayCluster", "serve-app")
    assert ask(port, b"y") == b"yend"
    forward.wait_for(rf"^http: reconnected to pod {cluster['metadata']['name']}-head-")

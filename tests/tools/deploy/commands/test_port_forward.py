import http.client
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

PORTS = ("--http", "0", "--grpc", "0", "--dashboard", "0")


@pytest.fixture
def echo(kubernetes):
    """What the pods' ports lead to: sends back what it gets, until its caller has said all or the word `end`."""
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


def local_port(running, title):
    return int(running.wait_for(rf"^{title}: 127\.0\.0\.1:(\d+) ")[1])


def ask(port, data):
    with socket.create_connection(("127.0.0.1", port), timeout=30) as caller:
        caller.sendall(data + b"end")
        found = b""
        while chunk := caller.recv(1 << 16):
            found += chunk
        return found


def test_three_ports_lead_to_the_pods_and_ctrl_c_ends_them(deploy, up, echo):
    running = deploy.start("port-forward", "local-cpu", *PORTS)
    for title in ("http", "grpc", "dashboard"):
        assert ask(local_port(running, title), title.encode()) == title.encode() + b"end"
        running.wait_for(rf"^{title}: connected to pod serve-app-.*-head-")
    ended = running.interrupt()
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.endswith("ended")


def test_many_connections_at_once_stay_apart_and_whole(deploy, up, echo):
    running = deploy.start("port-forward", "local-cpu", *PORTS)
    port = local_port(running, "http")
    texts = [bytes([number]) * 200_000 for number in range(1, 33)]
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda text: ask(port, text), texts))
    assert answers == [text + b"end" for text in texts]


def test_a_pod_that_goes_is_replaced_by_the_next(deploy, up, echo, kubernetes):
    running = deploy.start("port-forward", "local-cpu", *PORTS)
    port = local_port(running, "http")
    first = running_pod(running, port)
    kubernetes.control(delete_pod="head")
    assert ask(port, b"again") == b"againend", "waits for the new pod"
    second = running.wait_for(r"^http: connected again to pod (\S+)")[1]
    assert second != first


def running_pod(running, port):
    assert ask(port, b"x") == b"xend"
    return running.wait_for(r"^http: connected to pod (\S+)")[1]


def test_an_upgrade_moves_new_connections_to_the_new_cluster(deploy, up, echo):
    running = deploy.start("port-forward", "local-cpu", *PORTS)
    port = local_port(running, "http")
    first = running_pod(running, port)
    assert deploy("upgrade", "local-cpu", "--set", "images.tag=0.2.0").status == 0
    assert ask(port, b"y") == b"yend"
    assert running.wait_for(r"^http: connected again to pod (\S+)")[1].rsplit("-", 2)[0] != first.rsplit("-", 2)[0]


def test_a_port_of_the_pod_where_nobody_listens_closes_the_connection_and_not_the_rest(deploy, up, echo, kubernetes):
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()[1]
    kubernetes.control(portforward={"8265": nobody})
    running = deploy.start("port-forward", "local-cpu", *PORTS)
    with socket.create_connection(("127.0.0.1", local_port(running, "dashboard")), timeout=60) as caller:
        caller.sendall(b"is anybody there?")
        assert caller.recv(10) == b""
    running.wait_for(r"^dashboard: port 8265 of serve-app-.*: connection refused$")
    assert ask(local_port(running, "http"), b"z") == b"zend"


def test_a_port_that_is_taken_is_named_with_how_to_take_another(deploy, up):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = deploy("port-forward", "local-cpu", "--http", port)
    assert ended.status == 2
    assert f"port {port} for http: address already in use; take another with --http PORT (0: any)" in ended.err


def test_http_goes_through_to_a_stand_in_for_rays_dashboard(deploy, up, dashboard):
    running = deploy.start("port-forward", "local-cpu", *PORTS)
    connection = http.client.HTTPConnection("127.0.0.1", local_port(running, "dashboard"), timeout=30)
    for _ in range(2):  # over one connection
        connection.request("GET", "/api/serve/applications/", headers={"Authorization": "Bearer ray-token"})
        answer = connection.getresponse()
        assert (answer.status, b"vision" in answer.read()) == (200, True)
    connection.close()

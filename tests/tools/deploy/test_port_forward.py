import socket
import threading

import pytest

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.api.target import Target
from serve_app.tools.deploy.logs import lines_of
from serve_app.tools.deploy.port_forward import Forwarder, Route, copy_both_ways


@pytest.fixture
def forwarded():
    """Both ends of a forwarded connection, and the thread that copies."""
    client, caller = socket.socketpair()
    channel, pod = socket.socketpair()
    thread = threading.Thread(target=copy_both_ways, args=(caller, channel), daemon=True)
    thread.start()
    with client, caller, channel, pod:
        client.settimeout(10)
        pod.settimeout(10)
        yield client, pod, thread


def everything(sock):
    found = b""
    while chunk := sock.recv(1 << 16):
        found += chunk
    return found


def test_bytes_are_copied_both_ways(forwarded):
    client, pod, _ = forwarded
    sent = bytes(range(256)) * 8192
    threading.Thread(target=client.sendall, args=(sent,), daemon=True).start()
    received = b""
    while len(received) < len(sent):
        received += pod.recv(1 << 16)
    assert received == sent
    pod.sendall(b"answer")
    assert client.recv(100) == b"answer"


def test_the_caller_sees_when_the_pod_closes(forwarded):
    client, pod, thread = forwarded
    pod.sendall(b"last words")
    pod.close()
    assert everything(client) == b"last words"
    thread.join(10)
    assert not thread.is_alive()


def test_a_caller_that_closed_its_side_still_gets_the_answer(forwarded):
    client, pod, thread = forwarded
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert pod.recv(100) == b"question"
    pod.sendall(b"answer")
    pod.close()
    assert everything(client) == b"answer"
    thread.join(10)
    assert not thread.is_alive()


def test_a_local_port_in_use_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError) as refusal:
            Forwarder(None, Target("serve-app", "there"), print).listen(Route("http", port, 8000))
    message = f"port {port} for http: address already in use; use --http PORT (0: any free port)"
    assert refusal.value.message == message


def test_lines_are_whole_however_they_arrive():
    for chunks, lines in (
        ([b"one\ntw", b"o\n"], ["one", "two"]),
        ([b"no end"], ["no end"]),
        ([], []),
        ([b"\xc3", b"\xa9\n\n"], ["é", ""]),
        ([b"\xff\n"], ["\ufffd"]),
    ):
        assert list(lines_of(chunks)) == lines

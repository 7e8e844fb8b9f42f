import socket
import threading

import pytest

from serve_app.tools.deploy.looking.forwarding import carry
from serve_app.tools.deploy.looking.logs import lines_of


@pytest.fixture
def carried():
    """The two ends of a carried connection, and the thread that carries."""
    client, caller = socket.socketpair()
    channel, pod = socket.socketpair()
    thread = threading.Thread(target=carry, args=(caller, channel), daemon=True)
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


def test_bytes_go_both_ways_whole(carried):
    client, pod, _ = carried
    sent = bytes(range(256)) * 8192
    threading.Thread(target=client.sendall, args=(sent,), daemon=True).start()
    received = b""
    while len(received) < len(sent):
        received += pod.recv(1 << 16)
    assert received == sent
    pod.sendall(b"answer")
    assert client.recv(100) == b"answer"


def test_a_caller_is_told_when_the_pod_has_said_all(carried):
    client, pod, thread = carried
    pod.sendall(b"last words")
    pod.close()
    assert everything(client) == b"last words"
    thread.join(10)
    assert not thread.is_alive()


def test_a_caller_that_has_said_all_still_gets_its_answer(carried):
    client, pod, thread = carried
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert pod.recv(100) == b"question"
    pod.sendall(b"answer")
    pod.close()
    assert everything(client) == b"answer"
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b"one\ntw", b"o\n"], ["one", "two"]),
        ([b"no end"], ["no end"]),
        ([], []),
        ([b"\xc3", b"\xa9\n\n"], ["é", ""]),
        ([b"\xff\n"], ["\ufffd"]),
    ],
)
def test_lines_are_whole_however_they_come(chunks, lines):
    assert list(lines_of(chunks)) == lines

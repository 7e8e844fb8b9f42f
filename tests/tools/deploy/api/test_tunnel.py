import os
import signal
import socket
import threading

import pytest
import yaml
from kubernetes.client.rest import ApiException

from serve_app.errors import UnavailableError
from serve_app.tools.deploy.api import tunnel
from serve_app.tools.deploy.api.connection import connect


@pytest.fixture
def silent(tmp_path):
    """A connection to a server that never answers."""
    path = tmp_path / "config"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = f"http://127.0.0.1:{listener.getsockname()[1]}"
        written = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "one",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "one", "context": {"cluster": "c", "user": "u"}}],
        }
        path.write_text(yaml.safe_dump(written))
        yield connect(path)


def test_a_websocket_that_never_opens_times_out(silent, monkeypatch):
    monkeypatch.setattr(tunnel, "OPEN_TIMEOUT_S", 0.3)
    with pytest.raises(UnavailableError, match=r"can't connect to port 8265 of pod p: no answer within 0\.3 s"):
        tunnel.open_tunnel(silent, "n", "p", 8265)


def test_ctrl_c_interrupts_the_opening_of_a_websocket(silent):
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        tunnel.open_tunnel(silent, "n", "p", 8265)
    timer.join()


def test_a_refusal_is_reported_without_headers_and_body(silent, monkeypatch):
    for reason, message in (
        ("", "no reason given"),
        (None, "no reason given"),
        ("Handshake status 403 Forbidden -+-+- {'date': 'today'} -+-+- body", "Handshake status 403 Forbidden"),
    ):

        def refuse(*_, reason=reason, **__):
            raise ApiException(status=0, reason=reason)

        monkeypatch.setattr(tunnel, "portforward", refuse)
        with pytest.raises(UnavailableError) as refusal:
            tunnel.open_tunnel(silent, "n", "p", 8265)
        assert refusal.value.message == f"can't connect to port 8265 of pod p: {message}"

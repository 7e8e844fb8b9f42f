import os
import signal
import socket
import threading

import pytest
import yaml
from kubernetes.client.rest import ApiException

from serve_app.errors import UnavailableError
from serve_app.tools.deploy.api.connection import connect
from serve_app.tools.deploy.looking import channels


@pytest.fixture
def silent(tmp_path):
    """A connection to where somebody listens and says nothing."""
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


def test_a_websocket_that_never_opens_is_given_up(silent, monkeypatch):
    monkeypatch.setattr(channels, "OPEN_TIMEOUT_S", 0.3)
    with pytest.raises(UnavailableError, match=r"pod p gives no way to its port 8265: no answer within 0\.3 s"):
        channels.open_channel(silent, "n", "p", 8265)


def test_ctrl_c_ends_the_opening_of_a_websocket(silent):
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        channels.open_channel(silent, "n", "p", 8265)
    timer.join()


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("", "it isn't said why"),
        (None, "it isn't said why"),
        ("Handshake status 403 Forbidden -+-+- {'date': 'today'} -+-+- body", "Handshake status 403 Forbidden"),
    ],
)
def test_a_refusal_is_told_without_the_rest_of_the_answer_with_a_faked_client(silent, monkeypatch, reason, told):
    def refuse(*_, **__):
        raise ApiException(status=0, reason=reason)

    monkeypatch.setattr(channels, "portforward", refuse)
    with pytest.raises(UnavailableError) as refusal:
        channels.open_channel(silent, "n", "p", 8265)
    assert refusal.value.message == f"pod p gives no way to its port 8265: {told}"

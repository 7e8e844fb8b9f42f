"""The public interface: `from serve_app.clients import RestDetector, KserveDetector, ask`."""

import json
import subprocess
import sys

import pytest

import serve_app.clients
from serve_app.clients import ask
from serve_app.errors import UnavailableError


def test_the_package_exports_three_names_and_refuses_others():
    assert {getattr(serve_app.clients, name).__name__ for name in serve_app.clients.__all__} == {
        "KserveDetector", "RestDetector", "ask",
    }  # fmt: skip
    with pytest.raises(AttributeError, match=r"^module 'serve_app.clients' has no attribute 'nothing'$"):
        _ = serve_app.clients.nothing


def test_the_rest_client_does_not_load_grpc():
    code = "import sys, serve_app.clients as c; c.RestDetector(); sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_ask_returns_answers_in_order_with_times_and_sends_the_sampling_parameters(fake):
    answers = ask(["one", "two"], url=fake.url, max_tokens=60, temperature=0.5)
    assert [answer.text for answer in answers] == ["one Yes.", "two Yes."]
    assert all(answer.ended and answer.error is None and answer.to_last_s > 0 for answer in answers)
    assert json.loads(fake.messages[0].raw_input_contents[2][4:]) == {"max_tokens": 60, "temperature": 0.5}


def test_ask_raises_if_the_server_is_not_there(unreachable):
    with pytest.raises(UnavailableError, match=f"^{unreachable} is unavailable: "):
        ask(["one"], url=unreachable)

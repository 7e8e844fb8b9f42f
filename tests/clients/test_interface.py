"""What `from serve_app.clients import …` gives, and at which price."""

import subprocess
import sys

import pytest

import serve_app.clients
from serve_app.clients import ask
from serve_app.errors import UnavailableError


def test_every_name_is_there_and_no_other():
    assert {name: getattr(serve_app.clients, name).__name__ for name in serve_app.clients.__all__} == {
        "KserveDetector": "KserveDetector",
        "RestDetector": "RestDetector",
        "ask": "ask",
    }
    with pytest.raises(AttributeError, match=r"^module 'serve_app.clients' has no attribute 'nothing'$"):
        _ = serve_app.clients.nothing


def test_rest_costs_no_grpc():
    code = "import sys, serve_app.clients as c; c.RestDetector(); sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_prompts_are_answered_in_their_order_with_their_times_and_sampling(fake):
    answers = ask(["one", "two"], url=fake.url, max_tokens=60, temperature=0.5)
    assert [answer.text for answer in answers] == ["one Yes.", "two Yes."]
    assert all(answer.ended and answer.error is None and answer.to_last_s > 0 for answer in answers)
    (tensor,) = [given for given in fake.messages[0].inputs if given.name == "SAMPLING_PARAMETERS"]
    sampling = fake.messages[0].raw_input_contents[list(fake.messages[0].inputs).index(tensor)]
    assert b'"max_tokens": 60' in sampling
    assert b'"temperature": 0.5' in sampling


def test_a_server_that_is_not_there_is_an_error(unreachable):
    with pytest.raises(UnavailableError):
        ask(["one"], url=unreachable)

"""How long a request may take, by its header and by the configuration."""

import time

import pytest
from starlette.datastructures import Headers

from serve_app.errors import InvalidRequestError
from serve_app.router.requests import DEADLINE_HEADER, deadline_of
from serve_app.settings import RouterSettings

SETTINGS = RouterSettings(request_timeout_s=60)


@pytest.fixture(autouse=True)
def _now(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1000.0)


def test_without_a_header_the_configuration_decides():
    assert deadline_of({}, SETTINGS) == 1060.0


@pytest.mark.parametrize(
    ("text", "seconds"), [("5", 5), ("0.25", 0.25), ("1e1", 10), ("60", 60), ("61", 60), ("1e300", 60), ("inf", 60)]
)
def test_the_header_counts_from_now_up_to_what_the_configuration_allows(text, seconds):
    assert deadline_of({DEADLINE_HEADER: text}, SETTINGS) == 1000.0 + seconds


def test_the_headers_case_does_not_matter_over_http():
    assert deadline_of(Headers({"X-Request-Timeout-S": "2"}), SETTINGS) == 1002.0


@pytest.mark.parametrize("text", ["", "0", "-0.0", "-1", "nan", "-inf", "5s", "0x5", "1,5", "1e-400", "x" * 10_000])
def test_what_is_no_time_to_come_is_refused(text):
    with pytest.raises(InvalidRequestError) as caught:
        deadline_of({DEADLINE_HEADER: text}, SETTINGS)
    assert caught.value.message == f"{DEADLINE_HEADER} must be a number of seconds greater than 0, got {text[:40]!r}"

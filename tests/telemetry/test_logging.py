"""What a replica's log says of requests that it refuses, and of its own mistakes."""

import io
import logging

import pytest

from serve_app.errors import InvalidRequestError, ModelError, QueueFullError
from serve_app.telemetry.logging import keep_contents_out


@pytest.fixture
def log():
    """Serve's logger in a replica, and what it writes."""
    logger, written = logging.getLogger("ray.serve"), io.StringIO()
    handler, before = logging.StreamHandler(written), list(logger.filters)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    keep_contents_out()

    def tell(problem):
        try:
            raise problem
        except Exception:
            logger.exception("Request failed.")
        return written.getvalue()

    yield tell
    logger.removeHandler(handler)
    logger.filters[:] = before


@pytest.mark.parametrize("kind", [InvalidRequestError, QueueFullError])
def test_a_refusal_is_one_line_without_its_message(log, kind):
    assert log(kind("field 'what the caller wrote'")) == f"INFO Request refused: {kind.__name__}\n"


@pytest.mark.parametrize("problem", [ModelError("the model's own words"), KeyError("ours")])
def test_failures_keep_their_trace(log, problem):
    told = log(problem)
    assert told.startswith("ERROR Request failed.\nTraceback")
    assert str(problem) in told

"""Refused requests are logged without their contents, failures with their traceback."""

import io
import logging
import logging.config
import logging.handlers

import pytest

from serve_app.errors import InvalidRequestError, ModelError, QueueFullError
from serve_app.telemetry.logging import hide_request_contents, keep_handlers


@pytest.fixture
def log():
    """Logs an exception as Serve's replicas do, and returns what is written."""
    logger = logging.getLogger("ray.serve")
    filters = list(logger.filters)
    hide_request_contents()

    def write(problem):
        written = io.StringIO()
        handler = logging.StreamHandler(written)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        logger.addHandler(handler)
        try:
            raise problem
        except Exception:
            logger.exception("Request failed.")
        logger.removeHandler(handler)
        return written.getvalue()

    yield write
    logger.filters[:] = filters


def test_a_refusal_is_logged_as_one_line_without_its_message_and_a_failure_with_its_traceback(log):
    for kind in (InvalidRequestError, QueueFullError):
        assert log(kind("field 'what the client sent'")) == f"INFO Request refused: {kind.__name__}\n"
    for problem in (ModelError("the model's own words"), KeyError("ours")):
        written = log(problem)
        assert written.startswith("ERROR Request failed.\nTraceback")
        assert str(problem) in written


def test_a_log_file_goes_on_after_an_import_that_configures_logging(tmp_path):
    file = logging.FileHandler(tmp_path / "log")
    handler = logging.handlers.MemoryHandler(1, target=file)  # as Serve's
    logger = logging.Logger("of a replica")
    logger.addHandler(handler)
    with keep_handlers():
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})  # as vLLM does
    logger.warning("still here")
    assert (tmp_path / "log").read_text() == "still here\n"
    handler.close()
    file.close()

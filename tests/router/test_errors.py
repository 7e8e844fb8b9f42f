"""What a failure behind the router becomes at the edge."""

import pytest
from ray.exceptions import RayTaskError
from ray.serve.exceptions import BackPressureError

from serve_app.errors import EngineError, NotFoundError, UnavailableError
from serve_app.router.errors import answer_error, as_known_error


def raised_in_a_replica(problem):
    return RayTaskError("detect", "Traceback with internals", problem).as_instanceof_cause()


def test_an_error_of_a_replica_is_its_cause():
    found = as_known_error(raised_in_a_replica(NotFoundError("no track 'x'")))
    assert isinstance(found, NotFoundError)
    assert found.message == "no track 'x'"


def test_the_first_known_of_several_errors_counts():
    group = ExceptionGroup("several", [KeyError("x"), UnavailableError("queue full")])
    assert isinstance(as_known_error(raised_in_a_replica(group)), UnavailableError)
    assert isinstance(as_known_error(group), UnavailableError)


def test_too_much_work_for_a_replica_is_unavailable():
    found = as_known_error(BackPressureError(num_queued_requests=1, max_queued_requests=1))
    assert isinstance(found, UnavailableError)


@pytest.mark.parametrize("problem", [KeyError("secret"), raised_in_a_replica(KeyError("secret"))])
async def test_what_is_not_known_shows_no_internals(problem):
    answer = await answer_error(None, problem)
    assert answer.status_code == 500
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body


async def test_an_engine_that_failed_tells_the_log_and_a_busy_one_asks_to_come_back(caplog):
    failed = await answer_error(None, EngineError("model 'yolo' failed: Exception from core.cpp:84"))
    assert failed.status_code == 500
    assert b"core.cpp" not in failed.body
    busy = await answer_error(None, UnavailableError("queue full"))
    assert busy.status_code == 503
    assert busy.headers["retry-after"] == "1"

"""What a failure behind the router becomes at the edge."""

import json

import pytest
from ray.exceptions import RayTaskError
from ray.serve.exceptions import BackPressureError
from starlette.requests import Request

from serve_app.errors import EngineError, InvalidRequestError, NotFoundError, TooManyRequestsError, UnavailableError
from serve_app.router.errors import answer_error, as_known_error


def request_to(path):
    return Request({"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""})


TO_TRITON = request_to("/v2/models/yolo/infer")


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
    answer = await answer_error(TO_TRITON, problem)
    assert answer.status_code == 500
    assert b"secret" not in answer.body
    assert b"Traceback" not in answer.body


async def test_an_engine_that_failed_tells_the_log_and_a_busy_one_asks_to_come_back(caplog):
    failed = await answer_error(TO_TRITON, EngineError("model 'yolo' failed: Exception from core.cpp:84"))
    assert failed.status_code == 500
    assert b"core.cpp" not in failed.body
    busy = await answer_error(TO_TRITON, UnavailableError("queue full"))
    assert busy.status_code == 503
    assert busy.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    ("problem", "kind"),
    [
        (InvalidRequestError("no"), "invalid_request_error"),
        (NotFoundError("no"), "not_found_error"),
        (TooManyRequestsError("no"), "rate_limit_error"),
        (UnavailableError("no"), "server_error"),
    ],
)
async def test_openai_clients_get_errors_in_their_own_shape(problem, kind):
    answer = await answer_error(request_to("/v1/chat/completions"), problem)
    assert answer.status_code == problem.status
    error = {"message": "no", "type": kind, "param": None, "code": problem.status}
    assert json.loads(answer.body) == {"error": error}

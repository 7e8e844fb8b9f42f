"""Failures behind the router, as this project's errors and as HTTP's answers."""

import json

from ray.exceptions import RayTaskError
from ray.serve.exceptions import BackPressureError
from starlette.requests import Request

from serve_app.errors import (
    EngineError,
    InvalidRequestError,
    NotFoundError,
    QueueFullError,
    TooManyRequestsError,
    UnavailableError,
)
from serve_app.router.errors import answer_error, as_known_error


def request_to(path):
    return Request({"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""})


TO_TRITON = request_to("/v2/models/yolo/infer")


def raised_in_a_replica(problem):
    return RayTaskError("detect", "Traceback with internals", problem).as_instanceof_cause()


def test_a_failure_of_a_deployment_becomes_a_known_error():
    group = ExceptionGroup("several", [KeyError("x"), UnavailableError("queue full")])
    full = "the deployment's queue is full; try again later"
    for problem, kind, message in (
        (raised_in_a_replica(NotFoundError("no track 'x'")), NotFoundError, "no track 'x'"),
        (raised_in_a_replica(group), UnavailableError, "queue full"),  # the first known of several
        (group, UnavailableError, "queue full"),
        (BackPressureError(num_queued_requests=1, max_queued_requests=1), QueueFullError, full),
    ):
        found = as_known_error(problem)
        assert (type(found), found.message) == (kind, message)


async def test_an_internal_failure_shows_nothing_of_itself():
    secret = KeyError("secret")
    for problem in (secret, raised_in_a_replica(secret), EngineError("model 'yolo' failed: secret at core.cpp:84")):
        answer = await answer_error(TO_TRITON, problem)
        assert answer.status_code == 500
        assert json.loads(answer.body) == {"error": "internal error; see the service's log"}


async def test_each_protocol_has_errors_in_its_own_shape():
    for problem, kind in (
        (InvalidRequestError("no"), "invalid_request_error"),
        (NotFoundError("no"), "not_found_error"),
        (TooManyRequestsError("no"), "rate_limit_error"),
        (UnavailableError("no"), "server_error"),
    ):
        openai = {"message": "no", "type": kind, "param": None, "code": problem.status}
        for request, error in ((request_to("/v1/chat/completions"), openai), (TO_TRITON, "no")):
            answer = await answer_error(request, problem)
            assert (answer.status_code, json.loads(answer.body)) == (problem.status, {"error": error})
            assert answer.headers.get("retry-after") == ("1" if problem.status in (429, 503) else None)

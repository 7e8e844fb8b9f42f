"""Errors at the edge: failures of calls to deployments as this project's own errors, and HTTP's answers to them."""

import logging
import re
from collections.abc import Mapping
from typing import Any

import grpc
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    ReplicaUnavailableError,
    RequestCancelledError,
)  # fmt: skip
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from serve_app.errors import (
    ModelError,
    ModelLoadError,
    PayloadTooLargeError,
    QueueFullError,
    ServeAppError,
    SlowBodyError,
    UnavailableError,
)  # fmt: skip
from serve_app.router.requests import path_of
from serve_app.telemetry.observation import observed

logger = logging.getLogger("ray.serve")
UNAVAILABLE = (
    ReplicaUnavailableError,
    RequestCancelledError,
    RayActorError,
)
OPENAI = "/v1/"
OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
PUBLIC = (ModelError, ModelLoadError)  # failures of the caller's model or repository, not of this server


def as_known_error(problem: BaseException) -> ServeAppError | None:
    """The project's own error behind what a call to a deployment raised; `public_error` decides what clients see."""
    if isinstance(problem, BaseExceptionGroup):
        known = [found for inner in problem.exceptions if (found := as_known_error(inner))]
        return known[0] if known else None
    if isinstance(problem, RayTaskError) and problem.cause is not None:
        return as_known_error(problem.cause)
    if isinstance(problem, ServeAppError):
        return problem
    if isinstance(problem, grpc.aio.AioRpcError) and problem.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return PayloadTooLargeError("the request or its answer is larger than the limit for messages between replicas")
    if isinstance(problem, grpc.aio.AioRpcError):
        return UnavailableError("the connection to the replica was lost; try again")
    if isinstance(problem, DeploymentUnavailableError):
        return UnavailableError("the deployment could not be started; see its status in the Ray dashboard")
    if isinstance(problem, BackPressureError):
        return QueueFullError("the deployment's queue is full; try again later")
    if isinstance(problem, UNAVAILABLE):
        return UnavailableError("the deployment is busy or not ready; try again later")
    return None


def public_error(problem: BaseException) -> ServeAppError:
    """The error that a client sees; an internal one goes to the log, and the client learns only that it happened.

    The request's metrics get its status and reason.
    """
    known = as_known_error(problem)
    if known is None or (known.status == ServeAppError.status and not isinstance(known, PUBLIC)):
        logger.error("a request failed", exc_info=problem)
        known = ServeAppError("internal error; see the service's log")
    observation = observed()
    observation.status = known.status
    if known.status != ServeAppError.status:
        observation.refused = reason_of(type(known))
    return known


def reason_of(kind: type[ServeAppError]) -> str:
    """An error class as metrics name it: queue_full, not_found."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__.removesuffix("Error")).lower()


async def answer_error(request: Request, problem: Exception) -> JSONResponse:
    """The HTTP answer to an error of any kind."""
    if isinstance(problem, HTTPException):
        return error_response(request, problem.detail, problem.status_code, problem.headers)
    error = public_error(problem)
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s else {}
    if isinstance(error, SlowBodyError):
        headers["Connection"] = "close"  # the rest of the body is not read
    return error_response(request, error.message, error.status, headers)


def error_response(
    request: Request, message: str, status: int, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    document = (
        openai_error(message, status) if path_of(request.scope).startswith(OPENAI) else {"error": encodable(message)}
    )
    return JSONResponse(document, status, headers)


def openai_error(message: str, status: int) -> dict[str, Any]:
    """An error as OpenAI's clients expect it."""
    kind = OPENAI_TYPES.get(status, "server_error" if status >= ServeAppError.status else "invalid_request_error")
    return {"error": {"message": encodable(message), "type": kind, "param": None, "code": status}}


def encodable(message: str) -> str:
    """A message may quote half a surrogate pair from JSON, which UTF-8 can't encode."""
    return message.encode(errors="replace").decode()


HANDLERS = dict.fromkeys(
    (ServeAppError, RayTaskError, RayServeException, RayActorError, ExceptionGroup, HTTPException, Exception),
    answer_error,
)

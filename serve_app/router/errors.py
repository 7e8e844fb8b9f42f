"""Errors at the edge: what came back from a deployment in our own terms, and how HTTP answers it."""

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
    UnavailableError,
)  # fmt: skip
from serve_app.telemetry.observation import observed

logger = logging.getLogger("ray.serve")
UNAVAILABLE = (
    ReplicaUnavailableError,
    RequestCancelledError,
    RayActorError,
)
OPENAI = "/v1/"
OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
TOLD = (ModelError, ModelLoadError)  # failures that the caller's model or repository explains, not this server


def as_known_error(problem: BaseException) -> ServeAppError | None:
    """What a call to a deployment raised, in our own terms; None where nothing may be said of it."""
    if isinstance(problem, BaseExceptionGroup):
        known = [found for inner in problem.exceptions if (found := as_known_error(inner))]
        return known[0] if known else None
    if isinstance(problem, RayTaskError) and problem.cause is not None:
        return as_known_error(problem.cause)
    if isinstance(problem, ServeAppError):
        return problem
    if isinstance(problem, grpc.aio.AioRpcError) and problem.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return PayloadTooLargeError("the request or its answer is larger than what may pass between replicas")
    if isinstance(problem, grpc.aio.AioRpcError):
        return UnavailableError("the connection to the replica that works on this broke")
    if isinstance(problem, DeploymentUnavailableError):
        return UnavailableError("the deployment that answers this could not be started; its status in Ray says why")
    if isinstance(problem, BackPressureError):
        return QueueFullError("the queue of the deployment that answers this is full; try again")
    if isinstance(problem, UNAVAILABLE):
        return UnavailableError("the deployment that answers this is busy or not ready; try again")
    return None


def tellable(problem: BaseException) -> ServeAppError:
    """What a client may know of an error; anything else goes to the log and becomes a plain failure."""
    known = as_known_error(problem)
    if known is None or (known.status == ServeAppError.status and not isinstance(known, TOLD)):
        logger.error("a request failed", exc_info=problem)
        known = ServeAppError("the request failed; the log says why")
    observation = observed()
    observation.status = known.status
    if known.status != ServeAppError.status:
        observation.refused = reason_of(type(known))
    return known


def reason_of(kind: type[ServeAppError]) -> str:
    """An error's class as metrics name it: queue_full, not_found."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__.removesuffix("Error")).lower()


async def answer_error(request: Request, problem: Exception) -> JSONResponse:
    """Every error that reaches the edge over HTTP."""
    if isinstance(problem, HTTPException):
        return error_response(request, problem.detail, problem.status_code, problem.headers)
    told = tellable(problem)
    headers = {"Retry-After": str(told.retry_after_s)} if told.retry_after_s else None
    return error_response(request, told.message, told.status, headers)


def error_response(
    request: Request, message: str, status: int, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    document = (
        openai_error(message, status) if request.scope["path"].startswith(OPENAI) else {"error": sayable(message)}
    )
    return JSONResponse(document, status, headers)


def openai_error(message: str, status: int) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    kind = OPENAI_TYPES.get(status, "server_error" if status >= ServeAppError.status else "invalid_request_error")
    return {"error": {"message": sayable(message), "type": kind, "param": None, "code": status}}


def sayable(message: str) -> str:
    """A message may quote half a surrogate pair that came in JSON, which UTF-8 can't say."""
    return message.encode(errors="replace").decode()


HANDLERS = dict.fromkeys(
    (ServeAppError, RayTaskError, RayServeException, RayActorError, ExceptionGroup, HTTPException, Exception),
    answer_error,
)

"""Errors at the edge: what came back from a deployment in our own terms, and how HTTP answers it."""

import logging
from collections.abc import Mapping

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

from serve_app.errors import ModelError, ModelLoadError, PayloadTooLargeError, ServeAppError, UnavailableError

logger = logging.getLogger("ray.serve")
UNAVAILABLE = (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestCancelledError,
    RayActorError,
)
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
    if isinstance(problem, UNAVAILABLE):
        return UnavailableError("the deployment that answers this is busy or not ready; try again")
    return None


def tellable(problem: BaseException) -> ServeAppError:
    """What a client may know of an error; anything else goes to the log and becomes a plain failure."""
    known = as_known_error(problem)
    if known is None or (known.status == ServeAppError.status and not isinstance(known, TOLD)):
        logger.error("a request failed", exc_info=problem)
        return ServeAppError("the request failed; the log says why")
    return known


async def answer_error(_request: Request, problem: Exception) -> JSONResponse:
    """Every error that reaches the edge over HTTP."""
    if isinstance(problem, HTTPException):
        return _json(problem.detail, problem.status_code, problem.headers)
    told = tellable(problem)
    return _json(told.message, told.status, {"Retry-After": str(told.retry_after_s)} if told.retry_after_s else None)


def _json(message: str, status: int, headers: Mapping[str, str] | None) -> JSONResponse:
    # A message may quote half a surrogate pair that came in JSON, which UTF-8 can't say.
    return JSONResponse({"error": message.encode(errors="replace").decode()}, status, headers)


HANDLERS = dict.fromkeys(
    (ServeAppError, RayTaskError, RayServeException, RayActorError, ExceptionGroup, HTTPException, Exception),
    answer_error,
)

"""Errors as the REST API answers them: a status, and one sentence that names the thing."""

import logging

from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from serve_app.errors import ServeAppError, UnavailableError

logger = logging.getLogger("ray.serve")
UNAVAILABLE = (BackPressureError, DeploymentUnavailableError, RayActorError)


def as_known_error(problem: BaseException) -> ServeAppError | None:
    """What a call to a deployment raised, in our own terms; None where nothing may be said of it."""
    if isinstance(problem, BaseExceptionGroup):
        known = [found for inner in problem.exceptions if (found := as_known_error(inner))]
        return known[0] if known else None
    if isinstance(problem, RayTaskError) and problem.cause is not None:
        return as_known_error(problem.cause)
    if isinstance(problem, ServeAppError):
        return problem
    if isinstance(problem, UNAVAILABLE):
        return UnavailableError("the deployment that answers this is busy or not ready; try again")
    return None


async def answer_error(_request: Request, problem: Exception) -> JSONResponse:
    """Every error that reaches the edge."""
    if isinstance(problem, HTTPException):
        return JSONResponse({"error": problem.detail}, problem.status_code, problem.headers)
    known = as_known_error(problem)
    if known is None or known.status == ServeAppError.status:
        logger.error("a request failed", exc_info=problem)
        known = ServeAppError("the request failed; the log says why")
    headers = {"Retry-After": str(known.retry_after_s)} if known.retry_after_s else None
    return JSONResponse({"error": known.message}, known.status, headers)


HANDLERS = dict.fromkeys(
    (ServeAppError, RayTaskError, RayServeException, RayActorError, ExceptionGroup, HTTPException, Exception),
    answer_error,
)

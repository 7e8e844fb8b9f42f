"""Server errors as this project's exceptions: a client raises the class that the server raised."""

from serve_app import errors
from serve_app.errors import ServeAppError, UnavailableError

BY_STATUS: dict[int, type[ServeAppError]] = {
    kind.status: kind
    for kind in (
        errors.InvalidRequestError,
        errors.UnauthorizedError,
        errors.ForbiddenError,
        errors.NotFoundError,
        errors.PayloadTooLargeError,
        errors.NotAnImageError,
        errors.UnreadableImageError,
        errors.TooManyRequestsError,
        errors.UnsupportedError,
        errors.UnavailableError,
        errors.DeadlineExceededError,
    )
}
# gRPC has fewer codes than HTTP; any other one is a failure of the server.
GRPC_STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def error_of(status: int, message: str) -> ServeAppError:
    return BY_STATUS.get(status, ServeAppError)(message)


def unreachable(url: str, problem: BaseException) -> UnavailableError:
    return UnavailableError(f"{url} doesn't answer: {problem or type(problem).__name__}")

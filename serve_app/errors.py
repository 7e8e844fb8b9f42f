"""Every error a user can meet, with its HTTP status.

ServeAppError                     500  the root of all below
├── InvalidRequestError           400  a malformed request, or a value out of range
├── UnauthorizedError             401  no key, or an unknown one
├── ForbiddenError                403  the key doesn't allow this
├── NotFoundError                 404  no such model, track or path
├── SlowBodyError                 408  a body that arrives too slowly
├── PayloadTooLargeError          413  a body larger than the limit
├── NotAnImageError               415  bytes that are not a supported image format
├── UnreadableImageError          422  an image that can't be decoded, or has too many pixels
├── TooManyRequestsError          429  over the caller's rate limit
├── UnsupportedError              501  a feature of Triton that isn't supported here
├── UnavailableError              503  not ready, or gone; try again
│   ├── QueueFullError            503  the queue is full, or the request waited in it too long
│   ├── ReplicaKilledError        503  a part of the replica was killed while it was at work on the request
│   └── ReplicaLostError          503  the replica had lost a part before; another may answer, and the router asks it
├── DeadlineExceededError         504  the request's deadline has passed
├── ConfigurationError            500  invalid settings; raised before anything starts
└── EngineError                   500  the engine failed
    ├── ModelError                500  a model failed on a request, with the model's own message
    └── ModelLoadError            500  a model can't be loaded, with its name and the reason

Errors are pickled between processes, so a constructor takes the message and nothing else.
"""

import difflib
from collections.abc import Iterable


class ServeAppError(Exception):
    status = 500
    retry_after_s: int | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequestError(ServeAppError):
    status = 400


class UnauthorizedError(ServeAppError):
    status = 401


class ForbiddenError(ServeAppError):
    status = 403


class NotFoundError(ServeAppError):
    status = 404


class SlowBodyError(ServeAppError):
    status = 408


class PayloadTooLargeError(ServeAppError):
    status = 413


class NotAnImageError(ServeAppError):
    status = 415


class UnreadableImageError(ServeAppError):
    status = 422


class TooManyRequestsError(ServeAppError):
    status = 429
    retry_after_s = 1


class UnsupportedError(ServeAppError):
    status = 501


class UnavailableError(ServeAppError):
    status = 503
    retry_after_s = 1


class QueueFullError(UnavailableError):
    pass


class ReplicaKilledError(UnavailableError):
    pass


class ReplicaLostError(UnavailableError):
    pass


class DeadlineExceededError(ServeAppError):
    status = 504


class ConfigurationError(ServeAppError):
    pass


class EngineError(ServeAppError):
    pass


class ModelError(EngineError):
    pass


class ModelLoadError(EngineError):
    pass


def near_miss(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """The end of an error message about a name that doesn't exist: the nearest one, or `otherwise`."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else otherwise
    return f"; {hint}" if hint else ""

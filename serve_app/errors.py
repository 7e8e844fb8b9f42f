"""Every error a user can meet, with its HTTP status.

ServeAppError                     500
├── InvalidRequestError           400
├── UnauthorizedError             401
├── ForbiddenError                403
├── NotFoundError                 404
├── SlowBodyError                 408
├── PayloadTooLargeError          413
├── NotAnImageError               415
├── UnreadableImageError          422
├── TooManyRequestsError          429
├── UnsupportedError              501
├── UnavailableError              503
│   ├── QueueFullError            503
│   ├── ReplicaKilledError        503
│   └── ReplicaLostError          503
├── DeadlineExceededError         504
├── ConfigurationError            500
└── EngineError                   500
    ├── ModelError                500
    └── ModelLoadError            500

Errors are pickled between processes, so a constructor takes the message and nothing else.
"""

import difflib
from collections.abc import Iterable


class ServeAppError(Exception):
    """The root of every error that a user can meet."""

    status = 500
    retry_after_s: int | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequestError(ServeAppError):
    """A malformed request, or a value out of range."""

    status = 400


class UnauthorizedError(ServeAppError):
    """No key, or an unknown one."""

    status = 401


class ForbiddenError(ServeAppError):
    """The key doesn't allow this."""

    status = 403


class NotFoundError(ServeAppError):
    """No such model, track or path."""

    status = 404


class SlowBodyError(ServeAppError):
    """A body that arrives too slowly."""

    status = 408


class PayloadTooLargeError(ServeAppError):
    """A body larger than the limit."""

    status = 413


class NotAnImageError(ServeAppError):
    """Bytes that are not a supported image format."""

    status = 415


class UnreadableImageError(ServeAppError):
    """An image that can't be decoded, or has too many pixels."""

    status = 422


class TooManyRequestsError(ServeAppError):
    """Over the caller's rate limit."""

    status = 429
    retry_after_s = 1


class UnsupportedError(ServeAppError):
    """A feature of Triton that isn't supported here."""

    status = 501


class UnavailableError(ServeAppError):
    """Not ready, or gone; try again later."""

    status = 503
    retry_after_s = 1


class QueueFullError(UnavailableError):
    """The queue is full, or the request waited in it too long."""


class ReplicaKilledError(UnavailableError):
    """A part of the replica was killed while it was at work on the request."""


class ReplicaLostError(UnavailableError):
    """This replica had lost one of its processes before, and did not start on the request; the router asks another."""


class DeadlineExceededError(ServeAppError):
    """The request's deadline has passed."""

    status = 504


class ConfigurationError(ServeAppError):
    """Invalid settings; raised before anything starts."""


class EngineError(ServeAppError):
    """The engine failed."""


class ModelError(EngineError):
    """A model failed on a request, with the model's own message."""


class ModelLoadError(EngineError):
    """A model can't be loaded, with its name and the reason."""


def near_miss(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """The end of an error message about a name that doesn't exist: the nearest one, or `otherwise`."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else otherwise
    return f"; {hint}" if hint else ""

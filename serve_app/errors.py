"""Every error a user can meet, each with the status it answers.

ServeAppError                     500  anything below
├── InvalidRequestError           400  a request that says something it can't mean
├── UnauthorizedError             401  no key, or one that isn't known
├── ForbiddenError                403  a key that doesn't open this
├── NotFoundError                 404  no such model, track or size
├── PayloadTooLargeError          413  a body over the limit
├── NotAnImageError               415  bytes in no picture format that is read here
├── UnreadableImageError          422  a picture that can't be decoded, or has too many pixels
├── TooManyRequestsError          429  over a rate that was set for the caller
├── UnsupportedError              501  Triton has it somewhere, and it can't be had here
├── UnavailableError              503  nothing ready yet; worth another try
│   └── QueueFullError            503  too many wait already, or this one waited too long
├── DeadlineExceededError         504  the time the caller gave is over
├── ConfigurationError            500  settings that can't be served; raised before anything starts
└── EngineError                   500  the engine failed
    ├── ModelError                500  a model failed on a request; the message is the model's own
    └── ModelLoadError            500  a model can't be loaded; names it and the reason

Errors cross process borders by pickle, so a constructor takes the message and nothing else.
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

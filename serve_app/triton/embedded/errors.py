"""The typed errors of Triton, one class for each error code of libtritonserver.

TritonError
 ├─ UnknownError
 ├─ InternalError
 ├─ NotFoundError
 ├─ InvalidArgumentError
 ├─ UnavailableError
 ├─ UnsupportedError
 ├─ AlreadyExistsError
 └─ CancelledError
"""

from __future__ import annotations


class TritonError(Exception):
    """Base of all errors; the constructor takes only the message, so that it can be pickled."""


class UnknownError(TritonError):
    """The cause is unknown."""


class InternalError(TritonError):
    """The server or a backend failed."""


class NotFoundError(TritonError):
    """A model, version, tensor or file does not exist."""


class InvalidArgumentError(TritonError):
    """The request or the configuration is wrong."""


class UnavailableError(TritonError):
    """The server or the model does not accept requests now."""


class UnsupportedError(TritonError):
    """The operation is not supported."""


class AlreadyExistsError(TritonError):
    """What should be created exists already."""


class CancelledError(TritonError):
    """The request was cancelled."""


# The index is the value of TRITONSERVER_Error_Code.
ERROR_BY_CODE: tuple[type[TritonError], ...] = (
    UnknownError,
    InternalError,
    NotFoundError,
    InvalidArgumentError,
    UnavailableError,
    UnsupportedError,
    AlreadyExistsError,
    CancelledError,
)


def error_class(code: int) -> type[TritonError]:
    """The class for a code; a code newer than this table is an UnknownError."""
    return ERROR_BY_CODE[code] if 0 <= code < len(ERROR_BY_CODE) else UnknownError


def error_code(error: BaseException) -> int:
    """The code under which an exception is reported to Triton."""
    for code, cls in enumerate(ERROR_BY_CODE):
        if isinstance(error, cls):
            return code
    return ERROR_BY_CODE.index(InternalError)

"""When a request is too late: what the caller says, or else what the configuration does."""

import time
from collections.abc import Mapping

from serve_app.errors import InvalidRequestError
from serve_app.settings import RouterSettings

HEADER = "x-request-timeout-s"


def deadline_of(headers: Mapping[str, str], settings: RouterSettings) -> float:
    """Unix time; the header counts from now, and can't ask for more than the configuration allows."""
    text = headers.get(HEADER)
    if text is None:
        return time.time() + settings.request_timeout_s
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not seconds > 0:
        raise InvalidRequestError(f"{HEADER}: {text[:40]!r} is no number of seconds above 0")
    return time.time() + min(seconds, settings.request_timeout_s)

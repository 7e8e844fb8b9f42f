"""Which model a path names, and which of its versions."""

from starlette.requests import Request

from serve_app.errors import NotFoundError

MAX_VERSION = (1 << 63) - 1
MAX_DIGITS = 19


def model_of(request: Request) -> tuple[str, int]:
    """The model and its version; -1 means the newest."""
    text = request.path_params.get("version")
    if text is None:
        return request.path_params["model"], -1
    version = read_version(text)
    if version is None:
        raise NotFoundError("Not Found")
    return request.path_params["model"], version


def read_version(text: str) -> int | None:
    """None where the text is no version."""
    if not (text.isascii() and text.isdecimal()) or len(text) > MAX_DIGITS or int(text) > MAX_VERSION:
        return None
    return int(text)

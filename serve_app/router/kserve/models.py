"""What every KServe transport says of models: their names and versions, and what a load may bring."""

import base64
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from serve_app.errors import InvalidRequestError, NotFoundError
from serve_app.router.kserve.documents import require_text
from serve_app.types.changes import FILE_PREFIX

MAX_VERSION = (1 << 63) - 1
MAX_DIGITS = 19
# Why Triton's other extensions are not supported
NO_SHARED_MEMORY = "shared memory is not supported: replicas may run on other machines than their clients"
FIXED_SETTINGS = "these settings can't be changed over the network"


def model_of(request: Request) -> tuple[str, int]:
    """The model of a path and its version; -1 means the newest."""
    text = request.path_params.get("version")
    if text is None:
        return request.path_params["model"], -1
    version = read_version(text)
    if version is None:
        raise NotFoundError("Not Found")
    return request.path_params["model"], version


def read_version(text: str) -> int | None:
    """None if the text is not a version."""
    if not (text.isascii() and text.isdecimal()) or len(text) > MAX_DIGITS or int(text) > MAX_VERSION:
        return None
    return int(text)


def load_parameters(parameters: Any) -> dict[str, str | bytes]:
    """A configuration and the files of a model; JSON can't hold bytes, so files come in base64."""
    if not isinstance(parameters, Mapping):
        raise InvalidRequestError("Unable to parse 'parameters': it must be an object")
    checked: dict[str, str | bytes] = {}
    for name, value in parameters.items():
        require_load_parameter(name)
        if not isinstance(value, str):
            raise InvalidRequestError(f"load parameter '{name}' must be a string")
        checked[name] = _decode(name, value) if name.startswith(FILE_PREFIX) else require_text(value, f"'{name}'")
    return checked


def require_load_parameter(name: str) -> None:
    if name != "config" and not name.startswith(FILE_PREFIX):
        raise InvalidRequestError(f"unknown load parameter '{name}'; known are 'config' and '{FILE_PREFIX}<path>'")
    require_text(name, "a parameter's name")


def _decode(name: str, value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:  # also raised for text that isn't ASCII
        raise InvalidRequestError(f"load parameter '{name}' is not valid base64") from None

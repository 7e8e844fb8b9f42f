"""Parameters of a load, which may bring a configuration and the files of a model."""

import base64
from collections.abc import Mapping
from typing import Any

from serve_app.errors import InvalidRequestError
from serve_app.router.kserve.documents import require_text

FILE_PREFIX = "file:"


def load_parameters(parameters: Any) -> dict[str, str | bytes]:
    """JSON can't hold bytes: there, files come in base64."""
    if not isinstance(parameters, Mapping):
        raise InvalidRequestError("Unable to parse 'parameters': it is no object")
    checked: dict[str, str | bytes] = {}
    for name, value in parameters.items():
        require_load_parameter(name)
        if not isinstance(value, str):
            raise InvalidRequestError(f"parameter '{name}' of a load is no text")
        checked[name] = _decode(name, value) if name.startswith(FILE_PREFIX) else require_text(value, f"'{name}'")
    return checked


def require_load_parameter(name: str) -> None:
    if name != "config" and not name.startswith(FILE_PREFIX):
        raise InvalidRequestError(f"parameter '{name}' of a load is unknown: there is 'config' and '{FILE_PREFIX}…'")
    require_text(name, "a parameter's name")


def _decode(name: str, value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except ValueError:  # also of text that isn't ASCII
        raise InvalidRequestError(f"parameter '{name}' is no base64") from None

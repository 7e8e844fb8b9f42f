"""The JSON of requests, bounded before it becomes objects."""

import json
from typing import Any

import numpy as np

from serve_app.errors import InvalidRequestError, PayloadTooLargeError
from serve_app.types.tensors import Buffer

# A value takes some 32 bytes of Python's, a list or an object twice as many; each is at least a character of the body.
MAX_VALUES, MAX_CONTAINERS = 250_000, 250_000
MAX_TENSOR_VALUES = 8_000_000  # in JSON whose values become tensors at once
MAX_DEPTH = 64
TOO_DEEP = "failed to parse the request JSON buffer: it is nested too deeply"
COMMA, BRACKET, BRACE = b",[{"
CHUNK_BYTES = 1 << 20


def require_bounded(text: Buffer, max_values: int) -> None:
    """Refuse JSON that would become too many objects; commas and brackets inside of text count too."""
    characters = np.frombuffer(text, np.uint8)
    values = containers = 0
    for start in range(0, len(characters), CHUNK_BYTES):
        chunk = characters[start : start + CHUNK_BYTES]
        values += np.count_nonzero(chunk == COMMA)
        containers += np.count_nonzero(chunk == BRACKET) + np.count_nonzero(chunk == BRACE)
        if values > max_values or containers > MAX_CONTAINERS:
            raise PayloadTooLargeError(
                f"the JSON has more than {max_values} values, or more than {MAX_CONTAINERS} lists and objects; "
                "tensors may be sent as binary data"
            )


def parse_object(text: Buffer, max_values: int = MAX_VALUES) -> dict[str, Any]:
    """The JSON object in a body."""
    if len(text) > min(max_values, MAX_CONTAINERS):
        require_bounded(text, max_values)
    try:
        document = json.loads(bytes(text))
    except RecursionError:
        raise InvalidRequestError(TOO_DEEP) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as problem:
        raise InvalidRequestError(f"failed to parse the request JSON buffer: {problem}") from None
    except ValueError:
        raise InvalidRequestError("failed to parse the request JSON buffer: a number has too many digits") from None
    if not isinstance(document, dict):
        raise InvalidRequestError("failed to parse the request JSON buffer: it is not an object")
    _require_shallow(document)
    return document


def _require_shallow(document: dict[str, Any]) -> None:
    """Deeper documents can't be pickled for a replica."""
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise InvalidRequestError(TOO_DEEP)

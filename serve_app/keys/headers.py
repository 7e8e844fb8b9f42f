"""How an API key travels, in the headers of HTTP and the metadata of gRPC."""

import base64
import binascii
from collections.abc import Mapping

HOW = "send it as 'Authorization: Bearer <key>' or 'x-api-key: <key>'"


def key_headers(key: str) -> dict[str, str]:
    """What a client sends; nothing without a key."""
    return {"authorization": f"Bearer {key}"} if key else {}


def given_key(headers: Mapping[str, str]) -> str:
    """From any of the places where clients put it; "" without. Browsers and Triton's BasicAuth: as the password."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return _text(value)
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode("utf-8", "surrogateescape").partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return _text(headers.get("x-api-key", "").strip())


def _text(value: str) -> str:
    """HTTP's headers arrive as Latin-1, gRPC's metadata as text."""
    try:
        return value.encode("latin-1").decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return value

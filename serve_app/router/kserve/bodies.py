"""HTTP bodies of the v2 protocol: compressed or not, JSON alone or JSON and binary tensors after it."""

import asyncio
import gzip
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from serve_app.errors import InvalidRequestError, PayloadTooLargeError, UnsupportedError
from serve_app.router.kserve.values import unpack_values
from serve_app.types.tensors import InferAnswer

HEADER_LENGTH = "Inference-Header-Content-Length"
MAX_MEMBERS = 64  # each costs a copy of all that follows it
LARGE_BYTES = 256 << 10  # from here on zlib works in a thread of its own
REFUSED = re.compile(r"q\s*=\s*0(\.0*)?")
# zlib's window bits: 16 more means that a gzip header is there
WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body as it was before compression; the limit holds before and after."""
    body = await request.body()
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in WINDOWS:
        raise UnsupportedError(f"Unsupported compression type '{encoding}': there is gzip and deflate")
    if len(body) < LARGE_BYTES:
        return _inflate(body, encoding, max_bytes)
    return await asyncio.to_thread(_inflate, body, encoding, max_bytes)


def _inflate(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """A gzip body may have several members, one after the other."""
    inflated: list[bytes] = []
    rest, room = body, max_bytes
    while rest or not inflated:
        if len(inflated) == MAX_MEMBERS:
            raise InvalidRequestError(f"the {encoding} body has more than {MAX_MEMBERS} parts")
        inflater = zlib.decompressobj(WINDOWS[encoding])
        try:
            inflated.append(inflater.decompress(rest, room + 1))
        except zlib.error:
            raise InvalidRequestError(f"the body is no {encoding} data") from None
        room -= len(inflated[-1])
        if room < 0:
            raise PayloadTooLargeError(f"the inflated body is over the limit of {max_bytes} bytes")
        if not inflater.eof:
            raise InvalidRequestError(f"the {encoding} body is cut off")
        rest = inflater.unused_data
        if rest and encoding != "gzip":
            raise InvalidRequestError(f"{len(rest)} bytes follow the end of the {encoding} body")
    return b"".join(inflated)


def split_body(request: Request, body: bytes) -> tuple[memoryview, memoryview]:
    """The JSON and what follows it; without the header all of it is JSON, and after a header of 0 none is."""
    text = request.headers.get(HEADER_LENGTH)
    view = memoryview(body)
    if text is None and body:
        return view, view[len(view) :]
    if text is None:
        raise InvalidRequestError("the body is empty")
    length = int(text) if text.isdecimal() and len(text) < 19 else -1
    if not 0 <= length <= len(view):
        raise InvalidRequestError(f"inference header size should be in range (0, {len(view)}), got: {text[:40]}")
    return view[:length], view[length:]


def answer_body(answer: InferAnswer, as_binary: Mapping[str, bool]) -> tuple[bytes, int | None]:
    """The body, and how long its JSON part is when binary data follows."""
    outputs, tail = [], []
    for tensor in answer.outputs:
        row: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if as_binary.get(tensor.name, as_binary.get("", False)):
            row["parameters"] = {"binary_data_size": len(tensor.data)}
            tail.append(tensor.data)
        else:
            row["data"] = unpack_values(tensor)
        outputs.append(row)
    head: dict[str, Any] = {"id": answer.id} if answer.id else {}
    document = head | {"model_name": answer.model, "model_version": answer.version}
    if answer.parameters:
        document["parameters"] = dict(answer.parameters)
    text = write_json(document | {"outputs": outputs})
    if not tail:
        return text, None
    return b"".join((text, *tail)), len(text)


def write_json(document: Any) -> bytes:
    """As compact as Triton writes it."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


async def respond(request: Request, body: bytes, json_length: int | None) -> Response:
    """The answer, compressed the way that the caller named first, if any."""
    headers = {} if json_length is None else {HEADER_LENGTH: str(json_length)}
    encoding = _accepted(request.headers.get("accept-encoding", ""))
    if encoding:
        headers["Content-Encoding"] = encoding
        compress = gzip.compress if encoding == "gzip" else zlib.compress
        body = compress(body, 1) if len(body) < LARGE_BYTES else await asyncio.to_thread(compress, body, 1)
    media = "application/json" if json_length is None else "application/octet-stream"
    return Response(body, media_type=media, headers=headers)


def _accepted(header: str) -> str | None:
    for entry in header.split(","):
        name, *options = (part.strip().lower() for part in entry.split(";"))
        if name in WINDOWS and not any(REFUSED.fullmatch(option) for option in options):
            return name
    return None

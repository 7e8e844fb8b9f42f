"""HTTP bodies of the v2 protocol: JSON with or without binary tensors after it, or the bytes of one input."""

import asyncio
import gzip
import json
import math
import re
import zlib
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from serve_app.errors import InvalidRequestError
from serve_app.router.kserve.values import unpack_values
from serve_app.router.requests import LARGE_BYTES, WINDOWS
from serve_app.types.tensors import ELEMENT_BYTES, LENGTH_BYTES, InferAnswer, InferRequest, Tensor

HEADER_LENGTH = "Inference-Header-Content-Length"
REFUSED = re.compile(r"q\s*=\s*0(\.0*)?")


def split_body(request: Request, body: bytes | bytearray) -> tuple[memoryview, memoryview]:
    """The JSON and what follows it; without the header all of the body is JSON, with a header of 0 none is."""
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
        if _is_binary(tensor, as_binary):
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


def json_bytes(answer: InferAnswer, as_binary: Mapping[str, bool]) -> int:
    """How much of an answer becomes JSON."""
    return sum(len(tensor.data) for tensor in answer.outputs if not _is_binary(tensor, as_binary))


def _is_binary(tensor: Tensor, as_binary: Mapping[str, bool]) -> bool:
    return as_binary.get(tensor.name, as_binary.get("", False))


def write_json(document: Any) -> bytes:
    """Compact, as Triton writes it."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


async def respond(request: Request, body: bytes, json_length: int | None) -> Response:
    """The answer, with the first compression that the caller accepts, if any."""
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


def raw_request(
    model: str, version: int, body: memoryview, metadata: Mapping[str, Any], batched: bool, deadline: float
) -> InferRequest:
    """A body that is nothing but the one input of its model: BYTES are one element, and a body of numbers fills at most
    one variable dimension.
    """
    if len(metadata["inputs"]) != 1:
        raise InvalidRequestError(
            f"a raw binary request needs a model with exactly one input, '{model}' has {len(metadata['inputs'])}"
        )
    (row,) = metadata["inputs"]
    dims = [int(size) for size in row["shape"]]
    if batched:
        dims[0] = 1
    if row["datatype"] == "BYTES":
        data: bytes | memoryview = len(body).to_bytes(LENGTH_BYTES, "little") + body
        shape = tuple(1 if size == -1 else size for size in dims)
    else:
        data, shape = body, _fill(row["name"], dims, len(body), ELEMENT_BYTES[row["datatype"]])
    return InferRequest(
        model=model, version=version, inputs=(Tensor(row["name"], row["datatype"], shape, data),), deadline=deadline
    )


def _fill(name: str, dims: list[int], size: int, width: int) -> tuple[int, ...]:
    known = math.prod(size for size in dims if size != -1) * width
    if dims.count(-1) > 1:
        raise InvalidRequestError(
            f"input '{name}' has more than one variable dimension: send its shape in a JSON header"
        )
    open_size, rest = divmod(size, known) if known else (0, size)
    if rest or (-1 not in dims and open_size != 1):
        raise InvalidRequestError(f"the body has {size} bytes, which doesn't fit input '{name}' of shape {dims}")
    return tuple(open_size if size == -1 else size for size in dims)

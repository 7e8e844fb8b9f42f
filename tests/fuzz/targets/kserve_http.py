"""KServe's inference requests over HTTP: the framing, the JSON, the binary tensors after it, and raw bodies."""

import pickle

from starlette.requests import Request

from serve_app.router.kserve.bodies import HEADER_LENGTH, raw_request, split_body
from serve_app.router.kserve.documents import read_request

WORDS = (
    "inputs", "outputs", "parameters", "name", "datatype", "shape", "data", "id", "binary_data_size", "binary_data",
    "binary_data_output", "classification", "sequence_id", "sequence_start", "sequence_end", "priority", "timeout",
    "shared_memory_region", "triton_x", "BOOL", "UINT8", "INT64", "UINT64", "FP16", "FP32", "FP64", "BF16", "BYTES",
)  # fmt: skip
RAW = [("BYTES", [-1, 1]), ("UINT8", [-1, -1]), ("FP32", [-1, 3]), ("INT64", [0, -1]), ("FP64", [2])]


def take(data: bytes) -> None:
    """The first line is the header with the length of the JSON, if it isn't empty; the rest is the body."""
    header, _, body = data.partition(b"\n")
    headers = [(HEADER_LENGTH.lower().encode(), header)] if header else []
    head, tail = split_body(Request({"type": "http", "headers": headers}), body)
    if head:
        request, _ = read_request("model", -1, head, tail, None)
    else:
        datatype, shape = RAW[len(tail) % len(RAW)]
        metadata = {"inputs": [{"name": "X", "datatype": datatype, "shape": shape}]}
        request = raw_request("model", -1, tail, metadata, len(shape) > 1, 0.0)
    pickle.dumps(request, protocol=5)  # as it goes to a replica


def document_of(data: bytes) -> bytes:
    header, _, body = data.partition(b"\n")
    return body[: int(header)] if header.isdigit() and len(header) < 8 else body


def with_document(data: bytes, text: bytes) -> bytes:
    header, _, body = data.partition(b"\n")
    if header.isdigit() and len(header) < 8:
        return b"%d\n%b%b" % (len(text), text, body[int(header) :])
    return b"\n" + text

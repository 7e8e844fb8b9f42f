"""KServe's inference requests over gRPC, as the bytes of a ModelInferRequest."""

import pickle

from google.protobuf.json_format import MessageToJson, Parse
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2 as pb

from serve_app.errors import ServeAppError
from serve_app.router.kserve.messages import parse_message, write_parameter

WORDS = (
    "modelName", "modelVersion", "id", "parameters", "inputs", "outputs", "rawInputContents", "name", "datatype",
    "shape", "contents", "boolContents", "intContents", "int64Contents", "uintContents", "uint64Contents",
    "fp32Contents", "fp64Contents", "bytesContents", "boolParam", "int64Param", "stringParam", "doubleParam",
    "uint64Param", "sequence_id", "priority", "timeout", "classification", "BOOL", "INT8", "UINT64", "FP32", "BYTES",
)  # fmt: skip


def take(data: bytes) -> None:
    try:
        message = pb.ModelInferRequest.FromString(data)
    except DecodeError:  # gRPC refuses the call
        return
    try:
        request = parse_message(message, None)
    except ServeAppError as problem:
        problem.message.encode()  # as gRPC sends it
        raise
    for value in request.parameters.values():
        write_parameter(pb.InferParameter(), value)
    pickle.dumps(request, protocol=5)


def document_of(data: bytes) -> bytes:
    return MessageToJson(pb.ModelInferRequest.FromString(data)).encode()


def with_document(data: bytes, text: bytes) -> bytes:
    return Parse(text, pb.ModelInferRequest(), ignore_unknown_fields=True).SerializeToString()

"""The tensors of the language model contract: PROMPT, STREAM and SAMPLING_PARAMETERS in, TEXT out."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import InferResult
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

EMPTY_FINAL = "triton_enable_empty_final_response"
FINAL = "triton_final_response"


@dataclass(frozen=True, slots=True)
class Response:
    """One message of the stream; `final` is None if the server does not mark the last response."""

    request_id: str
    text: str | None
    final: bool | None
    error: str | None


def build_request(model: str, request_id: str, prompt: str, streaming: bool, sampling: Mapping[str, Any]) -> Any:
    message = pb.ModelInferRequest(model_name=model, id=request_id)
    message.parameters[EMPTY_FINAL].bool_param = True
    message.outputs.add(name="TEXT")
    _add_input(message, "PROMPT", "BYTES", _encode_bytes(prompt))
    _add_input(message, "STREAM", "BOOL", b"\x01" if streaming else b"\x00")
    _add_input(message, "SAMPLING_PARAMETERS", "BYTES", _encode_bytes(json.dumps(sampling)))
    return message


def _add_input(message: Any, name: str, datatype: str, raw: bytes) -> None:
    message.inputs.add(name=name, datatype=datatype, shape=[1])
    message.raw_input_contents.append(raw)


def _encode_bytes(text: str) -> bytes:
    """A BYTES tensor of one element: its length, then its content."""
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def read_response(message: Any) -> Response:
    response = message.infer_response
    final = response.parameters[FINAL].bool_param if FINAL in response.parameters else None
    if message.error_message:
        return Response(response.id, None, True, message.error_message)
    try:
        return Response(response.id, _read_text(response), final, None)
    except (ValueError, struct.error, InferenceServerException) as problem:
        return Response(response.id, None, True, f"TEXT can't be read: {problem}")


def _read_text(response: Any) -> str | None:
    """Several texts (n > 1) are joined with newlines."""
    texts = InferResult(response).as_numpy("TEXT")
    if texts is None:
        return None
    # A text that is still growing may end in the middle of a character.
    return "\n".join(text.decode(errors="replace") for text in texts.flatten())

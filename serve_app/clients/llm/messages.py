"""The tensors of the contract: PROMPT, STREAM and SAMPLING_PARAMETERS there, TEXT back."""

import json
import struct
from dataclasses import dataclass
from typing import Any

from tritonclient.grpc import InferResult
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException

EMPTY_FINAL = "triton_enable_empty_final_response"
FINAL = "triton_final_response"


@dataclass(frozen=True, slots=True)
class Question:
    """What every request of a run has in common."""

    model: str
    streaming: bool
    sampling: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Response:
    """One message of the stream; `final` is None where the server marks no end."""

    request_id: str
    text: str | None
    final: bool | None
    error: str | None


def write_request(question: Question, request_id: str, prompt: str) -> Any:
    message = pb.ModelInferRequest(model_name=question.model, id=request_id)
    message.parameters[EMPTY_FINAL].bool_param = True
    message.outputs.add(name="TEXT")
    _add(message, "PROMPT", "BYTES", _bytes_tensor(prompt))
    _add(message, "STREAM", "BOOL", b"\x01" if question.streaming else b"\x00")
    _add(message, "SAMPLING_PARAMETERS", "BYTES", _bytes_tensor(json.dumps(question.sampling)))
    return message


def _add(message: Any, name: str, datatype: str, raw: bytes) -> None:
    message.inputs.add(name=name, datatype=datatype, shape=[1])
    message.raw_input_contents.append(raw)


def _bytes_tensor(text: str) -> bytes:
    """One element as Triton lays it out: its length, then itself."""
    data = text.encode()
    return struct.pack("<I", len(data)) + data


def read_response(message: Any) -> Response:
    answer = message.infer_response
    final = answer.parameters[FINAL].bool_param if FINAL in answer.parameters else None
    if message.error_message:
        return Response(answer.id, None, True, message.error_message)
    try:
        return Response(answer.id, _text_of(answer), final, None)
    except (ValueError, struct.error, InferenceServerException) as problem:
        return Response(answer.id, None, True, f"TEXT can't be read: {problem}")


def _text_of(answer: Any) -> str | None:
    """Several texts, where more than one was asked for, under one another."""
    texts = InferResult(answer).as_numpy("TEXT")
    if texts is None:
        return None
    # Half a character may stand at the end of a text that is still growing.
    return "\n".join(text.decode(errors="replace") for text in texts.flatten())

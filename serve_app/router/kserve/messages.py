"""Inference requests and answers as protobuf messages."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2 as pb

from serve_app.errors import InvalidRequestError, UnsupportedError
from serve_app.router.kserve.documents import (
    MAX_INT64,
    SEQUENCE,
    custom_parameters,
    read_sequence,
    require_text,
    unsigned,
    with_timeout,
)  # fmt: skip
from serve_app.router.kserve.models import read_version
from serve_app.router.offload import INLINE_BYTES, Offload
from serve_app.types.tensors import (
    ELEMENT_BYTES,
    NUMPY_TYPES,
    InferAnswer,
    InferRequest,
    ParameterValue,
    RequestedOutput,
    Tensor,
    pack_elements,
    require_different,
    require_rank,
    require_size,
)  # fmt: skip

EMPTY_FINAL = "triton_enable_empty_final_response"
KNOWN = (*SEQUENCE, "priority", "timeout", EMPTY_FINAL)
# The typed field of each datatype; FP16 and BF16 have none and must be sent raw.
TYPED = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


async def read_message(message: Any, deadline: float | None, offload: Offload) -> InferRequest:
    """Raw contents are taken as they are; large typed ones are a list of numbers, which takes another process."""
    size = 0 if message.raw_input_contents else message.ByteSize()
    if size <= INLINE_BYTES:
        return parse_message(message, deadline)
    text = message.SerializeToString()
    return await offload.run(_parse_bytes, text, deadline, size=size, deadline=deadline)


def _parse_bytes(text: bytes, deadline: float | None) -> InferRequest:
    return parse_message(pb.ModelInferRequest.FromString(text), deadline)


def parse_message(message: Any, deadline: float | None) -> InferRequest:
    parameters = read_parameters(message.parameters)
    return InferRequest(
        model=require_text(message.model_name, "'model_name'"),
        version=parse_version(message.model_version),
        id=require_text(message.id, "'id'"),
        inputs=_read_inputs(message),
        outputs=tuple(_read_output(output) for output in message.outputs),
        parameters=custom_parameters(parameters, KNOWN),
        sequence=read_sequence(parameters),
        priority=unsigned(parameters, "priority"),
        timeout_us=unsigned(parameters, "timeout"),
        deadline=with_timeout(deadline, unsigned(parameters, "timeout")),
    )


def parse_version(text: str) -> int:
    """-1, the newest, if the text is empty."""
    if not text:
        return -1
    version = read_version(text)
    if version is None:
        raise InvalidRequestError(
            f"failed to get model version from specified version string '{text[:40]}', "
            "version should be an integral value > 0"
        )
    return version


def read_parameters(fields: Mapping[str, Any]) -> dict[str, ParameterValue]:
    values = {}
    for name, parameter in fields.items():
        kind = parameter.WhichOneof("parameter_choice")
        if kind is None:
            raise InvalidRequestError(f"parameter '{name}' has no value")
        values[name] = getattr(parameter, kind)
    return values


def _read_inputs(message: Any) -> tuple[Tensor, ...]:
    """Raw contents belong to the inputs by order; typed contents are part of each input."""
    raw = message.raw_input_contents
    inputs = []
    for position, given in enumerate(message.inputs):
        name, datatype, shape = require_text(given.name, "an input's name"), given.datatype, tuple(given.shape)
        if "shared_memory_region" in given.parameters:
            raise UnsupportedError(f"input '{name}' is in shared memory, which is not supported: send its data")
        if datatype not in ELEMENT_BYTES:
            raise InvalidRequestError(f"invalid datatype for input {name}")
        require_rank(name, shape)
        if any(size < 0 for size in shape):
            raise InvalidRequestError(f"All input dimensions should be specified for input '{name}', got {list(shape)}")
        if raw and given.HasField("contents"):
            raise InvalidRequestError(
                f"contents field must not be specified when using raw_input_contents for '{name}' "
                f"for model '{message.model_name}'"
            )
        if position >= len(raw) and not given.HasField("contents"):
            raise InvalidRequestError(
                f"unable to find data for input tensor '{name}' for model '{message.model_name}' in request."
            )
        data = raw[position] if raw else _read_typed(given, name, datatype)
        require_size(name, datatype, shape, len(data))
        inputs.append(Tensor(name, datatype, shape, data))
    require_different(inputs)
    return tuple(inputs)


def _read_typed(given: Any, name: str, datatype: str) -> bytes:
    field = TYPED.get(datatype)
    filled = [descriptor.name for descriptor, _ in given.contents.ListFields()]
    if field is None or any(other != field for other in filled):
        raise InvalidRequestError(
            f"unexpected explicit tensor data for input tensor '{name}' in {', '.join(filled) or 'no field'}, "
            f"expected datatype '{datatype}'" + (f" in {field}" if field else ", which must be sent raw")
        )
    values = getattr(given.contents, field)
    if datatype == "BYTES":
        return pack_elements(list(values))
    wide = np.array(values, {"uint64_contents": np.uint64, "fp32_contents": np.float32}.get(field))
    narrow = wide.astype(NUMPY_TYPES[datatype])
    if wide.dtype.kind in "iu" and not np.array_equal(wide, narrow):
        raise InvalidRequestError(f"the data of input '{name}' has values out of range for {datatype}")
    return narrow.tobytes()


def _read_output(output: Any) -> RequestedOutput:
    parameters = read_parameters(output.parameters)
    if "shared_memory_region" in parameters:
        raise UnsupportedError(f"output '{output.name}' is requested in shared memory, which is not supported")
    name = require_text(output.name, "an output's name")
    return RequestedOutput(name, unsigned(parameters, "classification", MAX_INT64))


def write_message(answer: InferAnswer) -> Any:
    message = pb.ModelInferResponse(model_name=answer.model, id=answer.id)
    if answer.outputs:  # the empty final answer of a decoupled model has no version
        message.model_version = answer.version
    for name, value in answer.parameters.items():
        write_parameter(message.parameters[name], value)
    for tensor in answer.outputs:
        message.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        message.raw_output_contents.append(bytes(tensor.data))
    return message


def write_parameter(parameter: Any, value: ParameterValue) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    else:
        parameter.string_param = value

"""Converts the protocol's requests to Triton's without a copy, and Triton's responses to the protocol's answers."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from serve_app.errors import InvalidRequestError
from serve_app.triton.binding import as_array, find_tritonserver
from serve_app.triton.classification import classify
from serve_app.types.tensors import ELEMENT_BYTES, InferAnswer, InferRequest, RequestedOutput, Tensor

# The flags of the C API; NVIDIA's Python API has no names for them.
SEQUENCE_START, SEQUENCE_END = 1, 2
# Labels of a model's outputs by their names
Labels = Mapping[str, Sequence[str]]


def create_request(model: Any, asked: InferRequest, timeout_us: int) -> Any:
    """The request as Triton takes it."""
    request = model.create_request(
        request_id=asked.id or None,
        inputs={tensor.name: _into_triton(tensor) for tensor in asked.inputs},
        parameters=dict(asked.parameters),
        priority=asked.priority,
        timeout=timeout_us,
        flags=SEQUENCE_START * asked.sequence.start | SEQUENCE_END * asked.sequence.end,
        correlation_id=asked.sequence.key or None,
    )
    names = tuple(output.name for output in asked.outputs)
    if hasattr(request, "requested_outputs"):
        request.requested_outputs = names
    elif names:  # NVIDIA's package computes every output; `_wanted` drops the others
        known = {row["name"] for row in model.metadata()["outputs"]}
        for name in names:
            if name not in known:
                raise InvalidRequestError(f"unexpected inference output '{name}' for model '{asked.model}'")
    return request


def _into_triton(tensor: Tensor) -> Any:
    triton = find_tritonserver()
    owner = np.frombuffer(tensor.data, np.uint8)
    buffer = triton.MemoryBuffer(owner.ctypes.data, triton.MemoryType.CPU, 0, owner.nbytes, owner)
    return triton.Tensor(getattr(triton.DataType, tensor.datatype), tensor.shape, buffer)


def read_answer(response: Any, asked: InferRequest, labels_of: Callable[[], Labels], batched: bool) -> InferAnswer:
    """A response with the requested outputs."""
    given = {name: _from_triton(name, tensor) for name, tensor in response.outputs.items()}
    outputs = _wanted(given, asked.outputs, labels_of, batched) if asked.outputs and given else tuple(given.values())
    return InferAnswer(
        model=response.model.name,
        version=str(response.model.version),
        id=asked.id,
        outputs=outputs,
        parameters=dict(response.parameters),
        final=response.final,
    )


def _from_triton(name: str, tensor: Any) -> Tensor:
    triton = find_tritonserver()
    if tensor.memory_type != triton.MemoryType.CPU:
        tensor = tensor.to_host()
    datatype = tensor.data_type.name
    # The memory may be larger than the shape needs; the size of BYTES is known from the memory only.
    size = math.prod(tensor.shape) * ELEMENT_BYTES[datatype] if datatype != "BYTES" else tensor.size
    raw = as_array(triton.Tensor(triton.DataType.UINT8, [size], tensor.memory_buffer)) if size else b""
    return Tensor(name, datatype, tuple(tensor.shape), bytes(raw))


def _wanted(
    given: Mapping[str, Tensor], outputs: Sequence[RequestedOutput], labels_of: Callable[[], Labels], batched: bool
) -> tuple[Tensor, ...]:
    """In the model's order, as Triton answers; outputs that the model didn't produce this time are left out."""
    wanted = {output.name: output.classes for output in outputs}
    labels = labels_of() if any(wanted.values()) else {}
    return tuple(
        classify(tensor, wanted[name], labels.get(name, ()), batched) if wanted[name] else tensor
        for name, tensor in given.items()
        if name in wanted
    )

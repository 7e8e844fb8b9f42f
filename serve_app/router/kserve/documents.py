"""The JSON part of a v2 inference request, and the binary tensors after it."""

import time
from collections.abc import Iterator
from typing import Any

from serve_app.errors import InvalidRequestError, UnsupportedError
from serve_app.router.kserve.values import pack_values
from serve_app.router.parsing import MAX_TENSOR_VALUES, parse_object
from serve_app.types.tensors import (
    ELEMENT_BYTES,
    Buffer,
    InferRequest,
    ParameterValue,
    RequestedOutput,
    Sequence,
    Tensor,
    require_different,
    require_rank,
    require_size,
)  # fmt: skip

# Request parameters with a meaning of their own; others are passed to the model.
SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")
RESERVED_PREFIX = "triton_"
MAX_INT64, MAX_UINT64 = (1 << 63) - 1, (1 << 64) - 1


def read_request(
    model: str, version: int, head: Buffer, tail: Buffer, deadline: float | None
) -> tuple[InferRequest, dict[str, bool]]:
    """Of the body's JSON and the binary tensors after it."""
    return parse_request(model, version, parse_object(head, MAX_TENSOR_VALUES), memoryview(tail), deadline)


def parse_request(
    model: str, version: int, document: dict[str, Any], binary: memoryview, deadline: float | None
) -> tuple[InferRequest, dict[str, bool]]:
    """The request, and for each requested output whether it is wanted as binary data."""
    parameters = object_field(document, "parameters")
    tail = _Tail(binary, model)
    inputs = tuple(_read_input(entry, tail) for entry in _objects(document, "inputs", required=True))
    tail.require_end()
    require_different(inputs)
    all_binary = flag_field(parameters, "binary_data_output")
    outputs, as_binary = _read_outputs(document, all_binary)
    request = InferRequest(
        model=model,
        version=version,
        id=text_field(document, "id"),
        inputs=inputs,
        outputs=outputs,
        parameters=custom_parameters(parameters, (*SEQUENCE, "priority", "timeout", "binary_data_output")),
        sequence=read_sequence(parameters),
        priority=unsigned(parameters, "priority"),
        timeout_us=unsigned(parameters, "timeout"),
        deadline=with_timeout(deadline, unsigned(parameters, "timeout")),
    )
    return request, as_binary | {"": all_binary}


class _Tail:
    """The bytes after the JSON, taken in the order of the inputs."""

    def __init__(self, data: memoryview, model: str) -> None:
        self._data, self._model, self._offset = data, model, 0

    def take(self, name: str, size: int) -> memoryview:
        missing = self._offset + size - len(self._data)
        if missing > 0:
            raise InvalidRequestError(
                f"unexpected size for input '{name}', expecting {missing} additional bytes for model '{self._model}'"
            )
        start, self._offset = self._offset, self._offset + size
        return self._data[start : self._offset]

    def require_end(self) -> None:
        if self._offset != len(self._data):
            raise InvalidRequestError(f"unexpected additional input data for model '{self._model}'")


def _read_input(entry: dict[str, Any], tail: _Tail) -> Tensor:
    name, datatype = text_field(entry, "name", required=True), text_field(entry, "datatype", required=True)
    shape, parameters = _shape(name, entry), object_field(entry, "parameters")
    if "shared_memory_region" in parameters:
        raise UnsupportedError(f"input '{name}' is in shared memory, which is not supported: send its data")
    if datatype not in ELEMENT_BYTES:
        raise InvalidRequestError(f"invalid datatype for input {name}")
    binary = "binary_data_size" in parameters
    if binary == ("data" in entry):
        raise InvalidRequestError(
            f"input '{name}' must set only one of the following fields: 'data', 'binary_data_size' in 'parameters'"
        )
    if binary:
        data = tail.take(name, unsigned(parameters, "binary_data_size"))
        require_size(name, datatype, shape, len(data))
        return Tensor(name, datatype, shape, data)
    return Tensor(name, datatype, shape, pack_values(name, datatype, shape, entry["data"]))


def _read_outputs(document: dict[str, Any], all_binary: bool) -> tuple[tuple[RequestedOutput, ...], dict[str, bool]]:
    outputs, as_binary = [], {}
    for entry in _objects(document, "outputs"):
        name, parameters = text_field(entry, "name", required=True), object_field(entry, "parameters")
        if "shared_memory_region" in parameters:
            raise UnsupportedError(f"output '{name}' is requested in shared memory, which is not supported")
        outputs.append(RequestedOutput(name, unsigned(parameters, "classification", MAX_INT64)))
        as_binary[name] = flag_field(parameters, "binary_data", all_binary)
    return tuple(outputs), as_binary


def read_sequence(parameters: dict[str, Any]) -> Sequence:
    """`sequence_id` may be a number or text; 0 and "" mean that there is no sequence."""
    key = parameters.get("sequence_id", 0)
    if isinstance(key, bool) or not isinstance(key, int | str) or (isinstance(key, int) and not 0 <= key <= MAX_UINT64):
        raise InvalidRequestError("Unable to parse 'sequence_id': it must be an unsigned integer or a string")
    if isinstance(key, str):
        require_text(key, "'sequence_id'")
    return Sequence(key, flag_field(parameters, "sequence_start"), flag_field(parameters, "sequence_end"))


def custom_parameters(parameters: dict[str, Any], known: tuple[str, ...]) -> dict[str, ParameterValue]:
    """The parameters that are passed to the model."""
    custom: dict[str, ParameterValue] = {}
    for name, value in parameters.items():
        if name in known:
            continue
        if name.startswith(RESERVED_PREFIX):
            raise InvalidRequestError(
                f"parameter keys starting with '{RESERVED_PREFIX}' are reserved for Triton usage "
                "and should not be specified."
            )
        if not isinstance(value, str | int | bool | float):
            raise InvalidRequestError(
                f"parameter '{name}' has invalid type. It should be either 'int', 'bool', or 'string'."
            )
        if type(value) is int and not -MAX_INT64 - 1 <= value <= MAX_INT64:
            raise InvalidRequestError(f"parameter '{name}' doesn't fit into 64 bits")
        require_text(name, "parameter")
        custom[name] = require_text(value, f"parameter '{name}'") if isinstance(value, str) else value
    return custom


def with_timeout(deadline: float | None, timeout_us: int) -> float | None:
    """The earlier of the two; the timeout counts from now."""
    ends = [end for end in (deadline, time.time() + timeout_us / 1e6 if timeout_us else None) if end is not None]
    return min(ends, default=None)


def require_text(value: str, what: str) -> str:
    """Triton's C API takes UTF-8 only, and ends text at the first zero byte."""
    try:
        if b"\0" not in value.encode():
            return value
    except UnicodeEncodeError:
        pass
    raise InvalidRequestError(f"{what} must be valid UTF-8 without zero bytes")


def unsigned(fields: dict[str, Any], key: str, limit: int = MAX_UINT64) -> int:
    value = fields.get(key, 0)
    if type(value) is not int or not 0 <= value <= limit:
        raise InvalidRequestError(f"Unable to parse '{key}': it must be an unsigned integer")
    return value


def flag_field(fields: dict[str, Any], key: str, default: bool = False) -> bool:
    value = fields.get(key, default)
    if not isinstance(value, bool):
        raise InvalidRequestError(f"Unable to parse '{key}': it must be true or false")
    return value


def text_field(fields: dict[str, Any], key: str, required: bool = False) -> str:
    value = fields.get(key, None if required else "")
    if not isinstance(value, str):
        raise InvalidRequestError(
            f"Unable to parse '{key}': it {'is missing' if key not in fields else 'must be a string'}"
        )
    return require_text(value, f"'{key}'")


def object_field(fields: dict[str, Any], key: str) -> dict[str, Any]:
    value = fields.get(key, {})
    if not isinstance(value, dict):
        raise InvalidRequestError(f"Unable to parse '{key}': it must be an object")
    return value


def _objects(fields: dict[str, Any], key: str, required: bool = False) -> Iterator[dict[str, Any]]:
    entries = fields.get(key, None if required else [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidRequestError(
            f"Unable to parse '{key}': it {'must be a list of objects' if key in fields else 'is missing'}"
        )
    return iter(entries)


def _shape(name: str, entry: dict[str, Any]) -> tuple[int, ...]:
    shape = entry.get("shape")
    if isinstance(shape, list):
        require_rank(name, shape)
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size <= MAX_INT64 for size in shape):
        raise InvalidRequestError("Unable to parse 'shape': it must be a list of unsigned integers")
    return tuple(shape)

"""Inference requests and answers as transports and engines pass them: names, types, shapes, and raw bytes."""

import math
import pickle
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from serve_app.errors import InvalidRequestError

# Every datatype of the protocol with the bytes of one element; BYTES elements carry their own lengths.
ELEMENT_BYTES: Mapping[str, int] = {
    "BOOL": 1, "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
    "FP16": 2, "FP32": 4, "FP64": 8, "BF16": 2, "BYTES": 0,
}  # fmt: skip
# BF16 is not here: NumPy has no such type, and its values travel as bytes only.
NUMPY_TYPES: Mapping[str, type[np.generic]] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
LENGTH_BYTES = 4
MAX_RANK = 32  # what NumPy can hold
ParameterValue = str | int | bool | float

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Tensor:
    """`data` is in the protocol's binary layout: little-endian, row-major, BYTES elements after their lengths."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Buffer

    def __reduce__(self) -> tuple[type["Tensor"], tuple[object, ...]]:
        # A slice of a body crosses to a replica without a copy of its own, and arrives as bytes.
        data = pickle.PickleBuffer(self.data) if isinstance(self.data, memoryview) else self.data
        return Tensor, (self.name, self.datatype, self.shape, data)

    def array(self) -> npt.NDArray[np.generic]:
        """A view of the values; BYTES and BF16 have none."""
        return np.frombuffer(self.data, NUMPY_TYPES[self.datatype]).reshape(self.shape)

    def elements(self) -> list[bytes]:
        """The elements of a BYTES tensor."""
        view, found, offset = memoryview(self.data), [], 0
        while offset < len(view):
            start = offset + LENGTH_BYTES
            offset = start + int.from_bytes(view[offset:start], "little")
            found.append(bytes(view[start:offset]))
        return found


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """An output that the caller wants; with `classes`, as its highest values with their labels."""

    name: str
    classes: int = 0


@dataclass(frozen=True, slots=True)
class Sequence:
    """The place of a request in a sequence of them; `key` 0 or "" means none."""

    key: int | str = 0
    start: bool = False
    end: bool = False


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One inference; `deadline` is the Unix time after which the answer is no longer wanted."""

    model: str
    version: int = -1
    id: str = ""
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[RequestedOutput, ...] = ()
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    sequence: Sequence = Sequence()
    priority: int = 0
    timeout_us: int = 0
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class InferAnswer:
    """One response; a decoupled model gives several, of which the last is `final` and may be empty."""

    model: str
    version: str
    id: str = ""
    outputs: tuple[Tensor, ...] = ()
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    final: bool = True
    tokens: int = 0  # of a language model, prompt and answer; with the last answer

    @property
    def empty(self) -> bool:
        return not self.outputs


def pack_elements(values: list[bytes]) -> bytes:
    """BYTES elements in their binary layout."""
    return b"".join(part for value in values for part in (len(value).to_bytes(LENGTH_BYTES, "little"), value))


def require_size(name: str, datatype: str, shape: tuple[int, ...], size: int) -> None:
    """Refuse bytes that can't be what the shape says; the elements of BYTES are the engine's to count."""
    width = ELEMENT_BYTES[datatype] or LENGTH_BYTES
    expected = math.prod(shape) * width
    if size < expected or (size > expected and datatype != "BYTES"):
        raise InvalidRequestError(f"input byte size mismatch for input '{name}'. Expected {expected}, got {size}")


def require_rank(name: str, shape: Sized) -> None:
    """Before anything is multiplied: the product of a long list of large numbers takes minutes."""
    if len(shape) > MAX_RANK:
        raise InvalidRequestError(f"input '{name}' has {len(shape)} dimensions; {MAX_RANK} is the most")


def require_different(tensors: Iterable[Tensor]) -> None:
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            raise InvalidRequestError(f"input '{tensor.name}' already exists in request")
        names.add(tensor.name)

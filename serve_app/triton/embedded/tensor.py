"""Tensors, and their conversion from and to NumPy, strings and DLPack."""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy

from .datatypes import (
    DLPACK_CODES,
    DataType,
    DeviceOrMemoryType,
    DLDeviceType,
    MemoryType,
    from_dtype,
    parse_device_or_memory_type,
    to_dtype,
)
from .dlpack import ImportedArray, lend
from .errors import InvalidArgumentError, UnsupportedError
from .memory import MemoryBuffer

NDArray = numpy.ndarray[Any, Any]

_LENGTH = struct.Struct("<I")
_DEVICE_BY_MEMORY_TYPE = {
    MemoryType.CPU: DLDeviceType.kDLCPU,
    # Pinned host memory is host memory to any consumer, CUDA or not.
    MemoryType.CPU_PINNED: DLDeviceType.kDLCPU,
    MemoryType.GPU: DLDeviceType.kDLCUDA,
}


@dataclass(slots=True)
class Tensor:
    """A data type, a shape and a buffer, which refers to the owner of its memory."""

    data_type: DataType
    shape: Sequence[int]
    memory_buffer: MemoryBuffer

    @property
    def data_ptr(self) -> int:
        return self.memory_buffer.data_ptr

    @property
    def memory_type(self) -> MemoryType:
        return self.memory_buffer.memory_type

    @property
    def memory_type_id(self) -> int:
        return self.memory_buffer.memory_type_id

    @property
    def size(self) -> int:
        """Bytes of the data."""
        return self.memory_buffer.size

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule that lends the memory until the consumer's array is freed."""
        if copy or (dl_device is not None and tuple(dl_device) != tuple(self.__dlpack_device__())):
            raise BufferError("a Triton tensor is lent on its own device and without a copy")
        code = DLPACK_CODES.get(self.data_type)
        if code is None:
            raise InvalidArgumentError(f"DLPack has no data type for {self.data_type.name}")
        self._order_after_writes(stream)
        return lend(self.memory_buffer, self.data_ptr, list(self.shape), code, self.__dlpack_device__())

    def __dlpack_device__(self) -> tuple[DLDeviceType, int]:
        return _DEVICE_BY_MEMORY_TYPE[self.memory_type], self.memory_type_id

    def _order_after_writes(self, stream: Any) -> None:
        """Let the consumer's stream see earlier writes; on the host there is nothing to wait for."""
        if self.memory_type != MemoryType.GPU:
            if stream not in (None, 0, -1):
                raise UnsupportedError(
                    f"DLPack stream synchronization on memory type {self.memory_type.name} "
                    f"and stream {stream} not supported"
                )
        elif stream != -1:
            _torch("DLPack from GPU memory").cuda.synchronize(self.memory_type_id)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        """A view of the memory for NumPy; a copy if the data is not on the host or is BYTES."""
        array = self._to_numpy_on_host()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def _to_numpy_on_host(self) -> NDArray:
        if self.data_type == DataType.BYTES:
            return self.to_bytes_array()
        dtype, count = to_dtype(self.data_type), prod(self.shape)
        raw = self._host_bytes()
        if raw.nbytes < count * dtype.itemsize:
            raise InvalidArgumentError(
                f"Tensor of shape {list(self.shape)} and type {self.data_type.name} needs "
                f"{count * dtype.itemsize} bytes, its memory has {raw.nbytes}"
            )
        view: NDArray = raw[: count * dtype.itemsize].view(dtype).reshape(self.shape)
        return view

    def _host_bytes(self) -> NDArray:
        """The memory as bytes, kept alive by the returned array."""
        buffer = self.memory_buffer
        if buffer.memory_type is not MemoryType.CPU:
            buffer = self.to_host().memory_buffer
        owner: Any = buffer.owner
        if type(owner) is numpy.ndarray and owner.dtype == numpy.uint8 and owner.shape == (buffer.size,):
            interface = owner.__array_interface__
            if interface["data"][0] == buffer.data_ptr and interface["strides"] is None:
                return owner
        return numpy.asarray(_ByteView(buffer))

    def to_string_array(self) -> NDArray:
        """The elements of a BYTES tensor, which must be UTF-8, as an array of str."""
        items = self.to_bytes_array()
        return numpy.array([item.decode() for item in items.ravel()], dtype=str).reshape(items.shape)

    def to_bytes_array(self) -> NDArray:
        """The elements of a BYTES tensor as an array of bytes objects."""
        if self.data_type != DataType.BYTES:
            raise InvalidArgumentError(f"Tensor has data type {self.data_type!r} not {DataType.BYTES!r}")
        items = _split_strings(self._host_bytes()[: self.size].data)
        result = numpy.empty(len(items), dtype=numpy.object_)
        result[:] = items
        try:
            return result.reshape(self.shape)
        except ValueError:
            raise InvalidArgumentError(
                f"BYTES tensor of shape {list(self.shape)} holds {len(items)} elements"
            ) from None

    @staticmethod
    def from_string_array(string_array: list[str] | NDArray) -> Tensor:
        """A BYTES tensor from strings."""
        return Tensor.from_bytes_array(string_array)

    @staticmethod
    def from_bytes_array(bytes_array: list[str] | list[bytes] | NDArray) -> Tensor:
        """A BYTES tensor from strings or bytes; the data is copied into Triton's format."""
        result = Tensor._from_object(bytes_array)
        if result.data_type != DataType.BYTES:
            raise InvalidArgumentError(
                f"Unsupported conversion from {bytes_array!r} to Triton BYTES Tensor. Got {result.data_type!r}"
            )
        return result

    @staticmethod
    def from_dlpack(obj: Any) -> Tensor:
        """A tensor on the memory of any object that supports DLPack, without a copy."""
        imported = ImportedArray(obj)
        return Tensor(imported.data_type, imported.shape, MemoryBuffer._from_imported(obj, imported))

    def to_host(self) -> Tensor:
        return self.to_device("cpu")

    def to_device(self, device: DeviceOrMemoryType) -> Tensor:
        """This tensor if it is on the device, else a copy on it."""
        memory_type, index = parse_device_or_memory_type(device)
        if self.memory_type == memory_type and self.memory_type_id == index:
            return self
        if memory_type == MemoryType.CPU and self.memory_type == MemoryType.CPU_PINNED:
            return self
        if MemoryType.GPU not in (memory_type, self.memory_type):
            here = (self.memory_type.name, self.memory_type_id)
            raise UnsupportedError(f"Conversion from {here} to {(memory_type.name, index)} not supported.")
        torch = _torch(f"Conversion from {self.memory_type.name} to {memory_type.name}")
        raw = torch.from_dlpack(Tensor(DataType.UINT8, [self.size], self.memory_buffer))
        target = f"cuda:{index}" if memory_type == MemoryType.GPU else "cpu"
        moved = MemoryBuffer.from_dlpack(raw.to(target, copy=True))
        return Tensor(self.data_type, list(self.shape), moved)

    @staticmethod
    def _from_object(obj: Any) -> Tensor:
        if isinstance(obj, numpy.ndarray):
            return Tensor._from_numpy(obj)
        if isinstance(obj, numpy.generic):
            return Tensor._from_numpy(numpy.asarray(obj))
        if isinstance(obj, list):
            return Tensor._from_list(obj)
        if hasattr(obj, "__dlpack__"):
            return Tensor.from_dlpack(obj)
        raise InvalidArgumentError(
            f"Input type {type(obj)} not supported. Must be a list, a numpy array or support __dlpack__"
        )

    @staticmethod
    def _from_list(obj: list[Any]) -> Tensor:
        try:
            return Tensor._from_numpy(numpy.array(obj))
        except Exception as error:
            raise InvalidArgumentError(f"Conversion from {obj!r} to tensor not supported.") from error

    @staticmethod
    def _from_numpy(obj: NDArray) -> Tensor:
        data_type, shape = from_dtype(obj.dtype), list(obj.shape)
        if data_type == DataType.BYTES:
            obj = _join_strings(obj)
        elif not obj.dtype.isnative or not obj.flags.c_contiguous:
            obj = numpy.ascontiguousarray(obj, dtype=obj.dtype.newbyteorder("="))
        return Tensor(data_type, shape, MemoryBuffer._from_array(obj))


class _ByteView:
    """Shows a buffer to NumPy as bytes and keeps it alive."""

    def __init__(self, buffer: MemoryBuffer) -> None:
        self._buffer = buffer
        # NumPy refuses address 0 even for 0 bytes.
        pointer = buffer.data_ptr or id(self)
        self.__array_interface__ = {
            "data": (pointer, False),
            "shape": (buffer.size,),
            "typestr": "|u1",
            "version": 3,
        }


def _split_strings(data: memoryview) -> list[bytes]:
    items, offset, end = [], 0, len(data)
    while offset < end:
        start = offset + 4
        stop = start + _LENGTH.unpack_from(data, offset)[0] if start <= end else end + 1
        if stop > end:
            raise InvalidArgumentError(f"BYTES tensor is cut off: an element at byte {offset} ends after byte {end}")
        items.append(bytes(data[start:stop]))
        offset = stop
    return items


def _join_strings(array: NDArray) -> NDArray:
    parts: list[bytes] = []
    for item in array.ravel().tolist():
        encoded = item if isinstance(item, bytes) else str(item).encode()
        parts += (_LENGTH.pack(len(encoded)), encoded)
    return numpy.frombuffer(b"".join(parts), dtype=numpy.uint8) if parts else numpy.empty(0, numpy.uint8)


def _torch(purpose: str) -> Any:
    """PyTorch, if the program has imported it: copies from and to the GPU are not worth a dependency."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        raise UnsupportedError(f"{purpose} not supported: import PyTorch with CUDA first")
    return torch

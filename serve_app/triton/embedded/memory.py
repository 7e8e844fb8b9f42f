"""Memory of tensors: buffers that keep their owner alive, and the allocators of output buffers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy

from .datatypes import DeviceOrMemoryType, MemoryType, parse_device_or_memory_type
from .dlpack import ImportedArray
from .errors import InvalidArgumentError


@dataclass(slots=True)
class MemoryBuffer:
    """A piece of memory and the object that owns it, which must not free it while `owner` is referenced."""

    data_ptr: int
    memory_type: MemoryType
    memory_type_id: int
    size: int
    owner: Any
    # The capsule through which a DLPack producer lent memory that is not the owner's own.
    _lent: Any = field(default=None, repr=False, compare=False)

    @staticmethod
    def from_dlpack(owner: Any) -> MemoryBuffer:
        """The memory of any object that supports DLPack, without a copy."""
        return MemoryBuffer._from_imported(owner, ImportedArray(owner))

    @staticmethod
    def _from_imported(owner: Any, imported: ImportedArray) -> MemoryBuffer:
        if not imported.contiguous:
            raise InvalidArgumentError("Only contiguous memory is supported")
        return MemoryBuffer(
            imported.data_ptr,
            imported.memory_type,
            imported.memory_type_id,
            imported.byte_size,
            owner,
            None if _owns(owner, imported.data_ptr) else imported.capsule,
        )

    @staticmethod
    def _from_array(array: numpy.ndarray[Any, Any]) -> MemoryBuffer:
        pointer = array.__array_interface__["data"][0]
        return MemoryBuffer(pointer, MemoryType.CPU, 0, array.nbytes, array)


def _owns(owner: Any, pointer: int) -> bool:
    """Whether the memory lives as long as the object: then its capsule would be a second reference to it."""
    interface = getattr(owner, "__array_interface__", None) or getattr(owner, "__cuda_array_interface__", None)
    if interface is not None:
        return bool(interface["data"][0] == pointer)
    address = getattr(owner, "data_ptr", None)  # of PyTorch and of Tensor
    return bool((address() if callable(address) else address) == pointer)


class MemoryAllocator(ABC):
    """Allocates memory for output tensors, which may be of another type than the requested one."""

    @abstractmethod
    def allocate(self, size: int, memory_type: MemoryType, memory_type_id: int, tensor_name: str) -> MemoryBuffer:
        """A buffer of at least `size` bytes."""


class NumpyAllocator(MemoryAllocator):
    """Host memory, owned by a NumPy array."""

    def allocate(self, size: int, memory_type: MemoryType, memory_type_id: int, tensor_name: str = "") -> MemoryBuffer:
        return MemoryBuffer._from_array(numpy.empty(size, numpy.uint8))


default_memory_allocators: dict[MemoryType, MemoryAllocator] = {MemoryType.CPU: NumpyAllocator()}


class OutputPlacement:
    """Where the outputs of one request are allocated."""

    __slots__ = ("_allocator", "_wanted")

    def __init__(self, allocator: MemoryAllocator | None, device: DeviceOrMemoryType | None) -> None:
        self._allocator = allocator
        self._wanted = None if device is None else parse_device_or_memory_type(device)
        if self._wanted and allocator is None and self._wanted[0] not in default_memory_allocators:
            raise InvalidArgumentError(
                f"Memory type {self._wanted[0].name} not supported: default_memory_allocators has no allocator for it"
            )

    def prefer(self, memory_type: MemoryType, memory_type_id: int) -> tuple[MemoryType, int]:
        return self._wanted or (memory_type, memory_type_id)

    def allocate(self, size: int, memory_type: MemoryType, memory_type_id: int, name: str) -> MemoryBuffer:
        memory_type, memory_type_id = self.prefer(memory_type, memory_type_id)
        # Without an allocator for the backend's preferred type the host is used, and Triton copies.
        allocator = (
            self._allocator or default_memory_allocators.get(memory_type) or default_memory_allocators[MemoryType.CPU]
        )
        return allocator.allocate(size, memory_type, memory_type_id, name)


DEFAULT_PLACEMENT = OutputPlacement(None, None)

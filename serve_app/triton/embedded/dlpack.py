"""The DLPack protocol: arrays of other libraries used without a copy, and tensors lent to them."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_int32, c_int64, c_uint8, c_uint16, c_uint64, c_void_p
from math import prod
from typing import Any

from .capi import immortal
from .datatypes import DATA_TYPE_BY_DLPACK, MEMORY_TYPE_BY_DEVICE, DataType, DLDeviceType, MemoryType
from .errors import InvalidArgumentError

_NAME = b"dltensor"


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


class _ManagedTensor(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", c_void_p), ("deleter", c_void_p)]


# A separate handle: argument types set on ctypes.pythonapi would affect every other package.
_python = ctypes.PyDLL(None)
_capsule_new = _python.PyCapsule_New
_capsule_new.restype, _capsule_new.argtypes = ctypes.py_object, (c_void_p, c_char_p, c_void_p)
_capsule_pointer = _python.PyCapsule_GetPointer
_capsule_pointer.restype, _capsule_pointer.argtypes = c_void_p, (ctypes.py_object, c_char_p)
# The same functions by address, for the destructor: an object that is being freed must not get references.
_dying = ctypes.PyDLL(None)
_dying_is_valid = _dying.PyCapsule_IsValid
_dying_is_valid.restype, _dying_is_valid.argtypes = c_int, (c_void_p, c_char_p)
_dying_pointer = _dying.PyCapsule_GetPointer
_dying_pointer.restype, _dying_pointer.argtypes = c_void_p, (c_void_p, c_char_p)

# What is lent now, by the address of its header, with all that must stay alive for it.
_lent: dict[int, tuple[Any, ...]] = {}


@immortal
@ctypes.CFUNCTYPE(None, c_void_p)
def _give_back(address: int | None) -> None:
    if address is not None:
        _lent.pop(address, None)


@immortal
@ctypes.PYFUNCTYPE(None, c_void_p)
def _capsule_destructor(capsule: int) -> None:
    if _dying_is_valid(capsule, _NAME):  # a consumer renames the capsule and calls the deleter itself
        _lent.pop(_dying_pointer(capsule, _NAME), None)


_GIVE_BACK = ctypes.cast(_give_back, c_void_p).value


def lend(owner: Any, pointer: int, shape: list[int], code: tuple[int, int], device: tuple[DLDeviceType, int]) -> Any:
    """A capsule for memory that `owner` keeps alive until the consumer gives it back."""
    dims = (c_int64 * max(1, len(shape)))(*shape)
    strides = (c_int64 * max(1, len(shape)))(*_row_major(shape))
    managed = _ManagedTensor()
    tensor = managed.tensor
    tensor.data, tensor.ndim = pointer, len(shape)
    tensor.device_type, tensor.device_id = device
    tensor.code, tensor.bits, tensor.lanes = *code, 1
    tensor.shape, tensor.strides = dims, strides
    managed.deleter = _GIVE_BACK
    address = ctypes.addressof(managed)
    _lent[address] = (managed, dims, strides, owner)
    return _capsule_new(address, _NAME, ctypes.cast(_capsule_destructor, c_void_p))


def _row_major(shape: list[int]) -> list[int]:
    return [prod(max(1, size) for size in shape[axis + 1 :]) for axis in range(len(shape))]


class ImportedArray:
    """An array of another library, described by the capsule that keeps its memory."""

    __slots__ = ("_tensor", "capsule", "shape")

    def __init__(self, array: Any) -> None:
        self.capsule = _request_capsule(array)
        self._tensor = _ManagedTensor.from_address(_capsule_pointer(self.capsule, _NAME)).tensor
        self.shape: list[int] = self._tensor.shape[: self._tensor.ndim] if self._tensor.ndim else []

    @property
    def data_type(self) -> DataType:
        tensor = self._tensor
        found = DATA_TYPE_BY_DLPACK.get((tensor.code, tensor.bits))
        if found is None or tensor.lanes != 1:
            code = (tensor.code, tensor.bits, tensor.lanes)
            raise InvalidArgumentError(f"Unsupported DLPack data type. Can't convert {code} to Triton server data type")
        return found

    @property
    def data_ptr(self) -> int:
        return int((self._tensor.data or 0) + self._tensor.byte_offset)

    @property
    def byte_size(self) -> int:
        return int(prod(self.shape) * self._tensor.bits * self._tensor.lanes // 8)

    @property
    def memory_type(self) -> MemoryType:
        return _memory_type(self._tensor.device_type)

    @property
    def memory_type_id(self) -> int:
        return int(self._tensor.device_id)

    @property
    def contiguous(self) -> bool:
        strides = self._tensor.strides
        if not strides or 0 in self.shape:
            return True
        wanted = _row_major(self.shape)
        return all(size == 1 or strides[axis] == wanted[axis] for axis, size in enumerate(self.shape))


def _memory_type(device_type: int) -> MemoryType:
    found = MEMORY_TYPE_BY_DEVICE.get(device_type)  # type: ignore[call-overload]
    if found is None:
        raise InvalidArgumentError(
            f"Unsupported DLPack device type. Can't convert {device_type} to Triton server memory type"
        )
    return MemoryType(found)


def _request_capsule(array: Any) -> Any:
    if not hasattr(array, "__dlpack__") or not hasattr(array, "__dlpack_device__"):
        raise InvalidArgumentError("Object does not support DLpack protocol")
    try:
        device_type, _ = array.__dlpack_device__()
        # Stream 1 is CUDA's legacy default stream, on which Triton reads its inputs.
        return array.__dlpack__(stream=1) if device_type == DLDeviceType.kDLCUDA else array.__dlpack__()
    except Exception as error:
        raise InvalidArgumentError(f"Object does not support DLPack protocol: {error}") from error

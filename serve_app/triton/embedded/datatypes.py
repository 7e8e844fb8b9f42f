"""The enumerations of the C API and the tables between Triton's, NumPy's and DLPack's data types."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any

import numpy

from .errors import InvalidArgumentError


class DataType(IntEnum):
    INVALID = 0
    BOOL = 1
    UINT8 = 2
    UINT16 = 3
    UINT32 = 4
    UINT64 = 5
    INT8 = 6
    INT16 = 7
    INT32 = 8
    INT64 = 9
    FP16 = 10
    FP32 = 11
    FP64 = 12
    BYTES = 13
    BF16 = 14


class MemoryType(IntEnum):
    CPU = 0
    CPU_PINNED = 1
    GPU = 2


class ParameterType(IntEnum):
    STRING = 0
    INT = 1
    BOOL = 2
    DOUBLE = 3
    BYTES = 4


class InstanceGroupKind(IntEnum):
    AUTO = 0
    CPU = 1
    GPU = 2
    MODEL = 3


class LogLevel(IntEnum):
    INFO = 0
    WARN = 1
    ERROR = 2
    VERBOSE = 3


class LogFormat(IntEnum):
    DEFAULT = 0
    ISO8601 = 1


class ModelControlMode(IntEnum):
    NONE = 0
    POLL = 1
    EXPLICIT = 2


class RateLimitMode(IntEnum):
    OFF = 0
    EXEC_COUNT = 1


class MetricFormat(IntEnum):
    PROMETHEUS = 0


class MetricKind(IntEnum):
    COUNTER = 0
    GAUGE = 1
    HISTOGRAM = 2


class ModelBatchFlag(IntFlag):
    UNKNOWN = 1
    FIRST_DIM = 2


class ModelTxnPropertyFlag(IntFlag):
    ONE_TO_ONE = 1
    DECOUPLED = 2


class ModelIndexFlag(IntFlag):
    READY = 1


class RequestFlag(IntFlag):
    SEQUENCE_START = 1
    SEQUENCE_END = 2


class RequestReleaseFlag(IntFlag):
    ALL = 1
    RESCHEDULE = 2


class ResponseCompleteFlag(IntFlag):
    FINAL = 1


class DLDeviceType(IntEnum):
    kDLCPU = 1  # noqa: N815 - the names are those of dlpack.h
    kDLCUDA = 2  # noqa: N815
    kDLCUDAHost = 3  # noqa: N815
    kDLOpenCL = 4  # noqa: N815
    kDLVulkan = 7  # noqa: N815
    kDLMetal = 8  # noqa: N815
    kDLVPI = 9  # noqa: N815
    kDLROCM = 10  # noqa: N815
    kDLROCMHost = 11  # noqa: N815
    kDLExtDev = 12  # noqa: N815
    kDLCUDAManaged = 13  # noqa: N815
    kDLOneAPI = 14  # noqa: N815
    kDLWebGPU = 15  # noqa: N815
    kDLHexagon = 16  # noqa: N815


DeviceOrMemoryType = tuple[MemoryType, int] | MemoryType | tuple[DLDeviceType, int] | str

_NUMPY_NAMES = {
    "bool": DataType.BOOL,
    "uint8": DataType.UINT8,
    "uint16": DataType.UINT16,
    "uint32": DataType.UINT32,
    "uint64": DataType.UINT64,
    "int8": DataType.INT8,
    "int16": DataType.INT16,
    "int32": DataType.INT32,
    "int64": DataType.INT64,
    "float16": DataType.FP16,
    "float32": DataType.FP32,
    "float64": DataType.FP64,
    "bfloat16": DataType.BF16,
}
_NAME_BY_TYPE = {value: name for name, value in _NUMPY_NAMES.items()}
_FROM_DTYPE: dict[Any, DataType] = {
    numpy.dtype(name): value for name, value in _NUMPY_NAMES.items() if name != "bfloat16"
}
_TO_DTYPE: dict[DataType, Any] = {value: dtype for dtype, value in _FROM_DTYPE.items()}

# (type code, bits) as in dlpack.h
DLPACK_CODES: dict[DataType, tuple[int, int]] = {
    DataType.BOOL: (6, 8),
    DataType.INT8: (0, 8),
    DataType.INT16: (0, 16),
    DataType.INT32: (0, 32),
    DataType.INT64: (0, 64),
    DataType.UINT8: (1, 8),
    DataType.UINT16: (1, 16),
    DataType.UINT32: (1, 32),
    DataType.UINT64: (1, 64),
    DataType.FP16: (2, 16),
    DataType.FP32: (2, 32),
    DataType.FP64: (2, 64),
    DataType.BF16: (4, 16),
}
DATA_TYPE_BY_DLPACK = {code: data_type for data_type, code in DLPACK_CODES.items()}
MEMORY_TYPE_BY_DEVICE = {
    DLDeviceType.kDLCPU: MemoryType.CPU,
    DLDeviceType.kDLCUDAHost: MemoryType.CPU_PINNED,
    DLDeviceType.kDLCUDA: MemoryType.GPU,
}


def from_dtype(dtype: Any) -> DataType:
    """Triton's type for a NumPy dtype; strings, bytes and objects become BYTES."""
    found = _FROM_DTYPE.get(dtype)
    if found is not None:
        return found
    if dtype.kind in "SUO":
        return DataType.BYTES
    # By name, because bfloat16 belongs to ml_dtypes and a byte-swapped dtype equals none of the table.
    found = _NUMPY_NAMES.get(dtype.name)
    if found is None:
        raise InvalidArgumentError(f"Unsupported Numpy data type. Can't convert {dtype} to Triton server data type")
    return found


def to_dtype(data_type: DataType) -> Any:
    """NumPy's dtype for a fixed-size Triton type."""
    found = _TO_DTYPE.get(data_type)
    if found is None and data_type == DataType.BF16:
        import ml_dtypes  # imported only by programs that use BF16

        found = _TO_DTYPE[data_type] = numpy.dtype(ml_dtypes.bfloat16)
    if found is None:
        raise InvalidArgumentError(f"Unsupported Triton data type. Can't convert {data_type!r} to Numpy data type")
    return found


def parse_device_or_memory_type(device: DeviceOrMemoryType) -> tuple[MemoryType, int]:
    """(memory type, id) of "gpu", "gpu:1", MemoryType.GPU, (MemoryType.GPU, 1) or (DLDeviceType.kDLCUDA, 1)."""
    if isinstance(device, MemoryType):
        return device, 0
    if isinstance(device, str):
        return _parse_device_string(device)
    if isinstance(device, tuple) and len(device) == 2:
        kind, index = device
        if isinstance(kind, MemoryType):
            return kind, int(index)
        if kind in MEMORY_TYPE_BY_DEVICE:
            return MEMORY_TYPE_BY_DEVICE[DLDeviceType(kind)], int(index)
    raise InvalidArgumentError(f"Invalid memory type {device}")


def _parse_device_string(device: str) -> tuple[MemoryType, int]:
    name, _, index = device.partition(":")
    try:
        return MemoryType[name.upper()], int(index) if index or ":" in device else 0
    except (KeyError, ValueError):
        raise InvalidArgumentError(f"Invalid memory type string {device}") from None

"""The GPU that this process would use, and the versions of its CUDA driver and TensorRT library."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DRIVER = "libcuda.so.1"
LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10")
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
NAME_BYTES = 256

Load = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    capability: tuple[int, int]


def find_gpu(load: Load = ctypes.CDLL) -> Gpu | None:
    """The first GPU that CUDA gives this process, None if there is none.

    Not through NVML, which ignores CUDA_VISIBLE_DEVICES. Creates no CUDA context, which would take GPU memory.
    """
    driver = _loaded(load)
    if driver is None or driver.cuInit(0):
        return None
    device = ctypes.c_int()
    if driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    name = ctypes.create_string_buffer(NAME_BYTES)
    major, minor = ctypes.c_int(), ctypes.c_int()
    failed = (
        driver.cuDeviceGetName(name, NAME_BYTES, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(major), CAPABILITY_MAJOR, device)
        or driver.cuDeviceGetAttribute(ctypes.byref(minor), CAPABILITY_MINOR, device)
    )
    return None if failed else Gpu(name.value.decode(errors="replace"), (major.value, minor.value))


def driver_version(load: Load = ctypes.CDLL) -> str | None:
    """The newest CUDA version that the driver supports, such as "12.4"; None without a driver."""
    driver = _loaded(load)
    number = ctypes.c_int()
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(number)):
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def library_version(load: Load = ctypes.CDLL) -> str | None:
    """The version of the TensorRT library that a server in this process would load, such as "10.13.2"; None without."""
    for name in LIBRARIES:
        if (library := _loaded(load, name)) is not None:
            number = library.getInferLibVersion()
            return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return None


def _loaded(load: Load, name: str = DRIVER) -> Any | None:
    try:
        return load(name)
    except OSError:
        return None

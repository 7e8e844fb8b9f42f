"""The C API of libtritonserver as typed ctypes functions, with its strings, errors and parameters."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ctypes import (
    CFUNCTYPE,
    POINTER,
    c_bool,
    c_char_p,
    c_double,
    c_int,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any

from . import library
from .datatypes import ParameterType
from .errors import InvalidArgumentError, error_class, error_code

_P = c_void_p
_OUT = POINTER(c_void_p)

AllocFn = CFUNCTYPE(c_void_p, _P, c_char_p, c_size_t, c_int, c_int64, _P, _OUT, _OUT, POINTER(c_int), POINTER(c_int64))
QueryFn = CFUNCTYPE(c_void_p, _P, _P, c_char_p, POINTER(c_size_t), POINTER(c_int), POINTER(c_int64))
RequestReleaseFn = CFUNCTYPE(None, _P, c_uint32, _P)
ResponseFn = CFUNCTYPE(None, _P, c_uint32, _P)
TraceActivityFn = CFUNCTYPE(None, _P, c_int, c_uint64, _P)
TraceReleaseFn = CFUNCTYPE(None, _P, _P)

# Functions that return an error object and may wait for a lock or do work: they run without the GIL.
_BLOCKING: dict[str, tuple[Any, ...]] = {
    "InferenceRequestNew": (_OUT, _P, c_char_p, c_int64),
    "ServerDelete": (_P,),
    "ServerInferAsync": (_P, _P, _P),
    "ServerIsLive": (_P, POINTER(c_bool)),
    "ServerIsReady": (_P, POINTER(c_bool)),
    "ServerLoadModel": (_P, c_char_p),
    "ServerLoadModelWithParameters": (_P, c_char_p, _OUT, c_uint64),
    "ServerMetadata": (_P, _OUT),
    "ServerMetrics": (_P, _OUT),
    "ServerModelBatchProperties": (_P, c_char_p, c_int64, POINTER(c_uint32), _OUT),
    "ServerModelConfig": (_P, c_char_p, c_int64, c_uint32, _OUT),
    "ServerModelIndex": (_P, c_uint32, _OUT),
    "ServerModelIsReady": (_P, c_char_p, c_int64, POINTER(c_bool)),
    "ServerModelMetadata": (_P, c_char_p, c_int64, _OUT),
    "ServerModelStatistics": (_P, c_char_p, c_int64, _OUT),
    "ServerModelTransactionProperties": (_P, c_char_p, c_int64, POINTER(c_uint32), _OUT),
    "ServerNew": (_OUT, _P),
    "ServerPollModelRepository": (_P,),
    "ServerRegisterModelRepository": (_P, c_char_p, _OUT, c_uint32),
    "ServerSetExitTimeout": (_P, c_uint32),
    "ServerStop": (_P,),
    "ServerUnloadModel": (_P, c_char_p),
    "ServerUnloadModelAndDependents": (_P, c_char_p),
    "ServerUnregisterModelRepository": (_P, c_char_p),
    "MetricsFormatted": (_P, c_int, POINTER(c_char_p), POINTER(c_size_t)),
    "LogMessage": (c_int, c_char_p, c_int, c_char_p),
}

# Functions that return an error object and only touch their arguments: keeping the GIL is cheaper than releasing it.
_QUICK: dict[str, tuple[Any, ...]] = {
    "ApiVersion": (POINTER(c_uint32), POINTER(c_uint32)),
    "GetMetricKind": (_P, POINTER(c_int)),
    "InferenceRequestAddInput": (_P, c_char_p, c_int, POINTER(c_int64), c_uint64),
    "InferenceRequestAddRequestedOutput": (_P, c_char_p),
    "InferenceRequestAppendInputData": (_P, c_char_p, _P, c_size_t, c_int, c_int64),
    "InferenceRequestCancel": (_P,),
    "InferenceRequestDelete": (_P,),
    "InferenceRequestSetBoolParameter": (_P, c_char_p, c_bool),
    "InferenceRequestSetCorrelationId": (_P, c_uint64),
    "InferenceRequestSetCorrelationIdString": (_P, c_char_p),
    "InferenceRequestSetDoubleParameter": (_P, c_char_p, c_double),
    "InferenceRequestSetFlags": (_P, c_uint32),
    "InferenceRequestSetId": (_P, c_char_p),
    "InferenceRequestSetIntParameter": (_P, c_char_p, c_int64),
    "InferenceRequestSetPriorityUInt64": (_P, c_uint64),
    "InferenceRequestSetReleaseCallback": (_P, RequestReleaseFn, _P),
    "InferenceRequestSetResponseCallback": (_P, _P, _P, ResponseFn, _P),
    "InferenceRequestSetStringParameter": (_P, c_char_p, c_char_p),
    "InferenceRequestSetTimeoutMicroseconds": (_P, c_uint64),
    "InferenceResponseDelete": (_P,),
    "InferenceResponseError": (_P,),
    "InferenceResponseModel": (_P, POINTER(c_char_p), POINTER(c_int64)),
    "InferenceResponseOutput": (
        _P, c_uint32, POINTER(c_char_p), POINTER(c_int), POINTER(POINTER(c_int64)), POINTER(c_uint64),
        _OUT, POINTER(c_size_t), POINTER(c_int), POINTER(c_int64), _OUT,
    ),
    "InferenceResponseOutputCount": (_P, POINTER(c_uint32)),
    "InferenceResponseParameter": (_P, c_uint32, POINTER(c_char_p), POINTER(c_int), _OUT),
    "InferenceResponseParameterCount": (_P, POINTER(c_uint32)),
    "InferenceTraceDelete": (_P,),
    "InferenceTraceModelName": (_P, POINTER(c_char_p)),
    "InferenceTraceNew": (_OUT, c_int, c_uint64, TraceActivityFn, TraceReleaseFn, _P),
    "MessageDelete": (_P,),
    "MessageSerializeToJson": (_P, POINTER(c_char_p), POINTER(c_size_t)),
    "MetricArgsDelete": (_P,),
    "MetricArgsNew": (_OUT,),
    "MetricArgsSetHistogram": (_P, POINTER(c_double), c_uint64),
    "MetricDelete": (_P,),
    "MetricFamilyDelete": (_P,),
    "MetricFamilyNew": (_OUT, c_int, c_char_p, c_char_p),
    "MetricIncrement": (_P, c_double),
    "MetricNewWithArgs": (_OUT, _P, _OUT, c_uint64, _P),
    "MetricObserve": (_P, c_double),
    "MetricSet": (_P, c_double),
    "MetricValue": (_P, POINTER(c_double)),
    "MetricsDelete": (_P,),
    "ResponseAllocatorNew": (_OUT, AllocFn, _P, _P),
    "ResponseAllocatorSetQueryFunction": (_P, QueryFn),
    "ServerOptionsAddRateLimiterResource": (_P, c_char_p, c_size_t, c_int),
    "ServerOptionsDelete": (_P,),
    "ServerOptionsNew": (_OUT,),
    "ServerOptionsSetBackendConfig": (_P, c_char_p, c_char_p, c_char_p),
    "ServerOptionsSetBackendDirectory": (_P, c_char_p),
    "ServerOptionsSetBufferManagerThreadCount": (_P, c_uint32),
    "ServerOptionsSetCacheConfig": (_P, c_char_p, c_char_p),
    "ServerOptionsSetCacheDirectory": (_P, c_char_p),
    "ServerOptionsSetCpuMetrics": (_P, c_bool),
    "ServerOptionsSetCudaMemoryPoolByteSize": (_P, c_int, c_uint64),
    "ServerOptionsSetEnablePeerAccess": (_P, c_bool),
    "ServerOptionsSetExitOnError": (_P, c_bool),
    "ServerOptionsSetExitTimeout": (_P, c_uint32),
    "ServerOptionsSetGpuMetrics": (_P, c_bool),
    "ServerOptionsSetHostPolicy": (_P, c_char_p, c_char_p, c_char_p),
    "ServerOptionsSetLogError": (_P, c_bool),
    "ServerOptionsSetLogFile": (_P, c_char_p),
    "ServerOptionsSetLogFormat": (_P, c_int),
    "ServerOptionsSetLogInfo": (_P, c_bool),
    "ServerOptionsSetLogVerbose": (_P, c_int),
    "ServerOptionsSetLogWarn": (_P, c_bool),
    "ServerOptionsSetMetrics": (_P, c_bool),
    "ServerOptionsSetMetricsConfig": (_P, c_char_p, c_char_p, c_char_p),
    "ServerOptionsSetMetricsInterval": (_P, c_uint64),
    "ServerOptionsSetMinSupportedComputeCapability": (_P, c_double),
    "ServerOptionsSetModelControlMode": (_P, c_int),
    "ServerOptionsSetModelLoadDeviceLimit": (_P, c_int, c_int, c_double),
    "ServerOptionsSetModelLoadRetryCount": (_P, c_uint32),
    "ServerOptionsSetModelLoadThreadCount": (_P, c_uint32),
    "ServerOptionsSetModelNamespacing": (_P, c_bool),
    "ServerOptionsSetModelRepositoryPath": (_P, c_char_p),
    "ServerOptionsSetPinnedMemoryPoolByteSize": (_P, c_uint64),
    "ServerOptionsSetRateLimiterMode": (_P, c_int),
    "ServerOptionsSetRepoAgentDirectory": (_P, c_char_p),
    "ServerOptionsSetServerId": (_P, c_char_p),
    "ServerOptionsSetStartupModel": (_P, c_char_p),
    "ServerOptionsSetStrictModelConfig": (_P, c_bool),
    "ServerOptionsSetStrictReadiness": (_P, c_bool),
}  # fmt: skip

# Functions that return something else than an error object.
_VALUES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "ErrorCode": (c_int, (_P,)),
    "ErrorDelete": (None, (_P,)),
    "ErrorMessage": (c_char_p, (_P,)),
    "ErrorNew": (c_void_p, (c_int, c_char_p)),
    "LogIsEnabled": (c_bool, (c_int,)),
    "ParameterBytesNew": (c_void_p, (c_char_p, c_char_p, c_uint64)),
    "ParameterDelete": (None, (_P,)),
    "ParameterNew": (c_void_p, (c_char_p, c_int, _P)),
}


class CApi:
    """The functions of the library as attributes, without their TRITONSERVER_ prefix."""

    def __init__(self, path: str) -> None:
        blocking, quick = ctypes.CDLL(path), ctypes.PyDLL(path)
        for name, arguments in _BLOCKING.items():
            self._bind(blocking, name, c_void_p, arguments)
        for name, arguments in _QUICK.items():
            self._bind(quick, name, c_void_p, arguments)
        for name, (result, arguments) in _VALUES.items():
            self._bind(quick, name, result, arguments)

    def _bind(self, dll: ctypes.CDLL, name: str, result: Any, arguments: tuple[Any, ...]) -> None:
        function = getattr(dll, f"TRITONSERVER_{name}")
        function.restype, function.argtypes = result, arguments
        setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:  # called only for a name that is not bound
        raise AttributeError(f"libtritonserver function {name} is not bound")


_api: CApi | None = None


def api() -> CApi:
    """The loaded library; the first call loads it."""
    global _api
    if _api is None:
        loaded = CApi(str(library.load()))
        _require_version(loaded)
        _api = loaded
    return _api


def _require_version(loaded: CApi) -> None:
    major, minor = c_uint32(), c_uint32()
    loaded.ApiVersion(major, minor)
    if major.value != 1:
        raise InvalidArgumentError(f"libtritonserver has C API {major.value}.{minor.value}, this binding needs 1.x")


def check(error: int | None) -> None:
    """Raise the typed error for an error object and delete the object."""
    if error:
        raise take_error(error)


def take_error(error: int) -> Exception:
    """The exception for an error object that belongs to the caller, which is deleted."""
    exception = read_error(error)
    api().ErrorDelete(error)
    return exception


def read_error(error: int) -> Exception:
    """The exception for an error object that belongs to something else."""
    message = api().ErrorMessage(error) or b""
    return error_class(api().ErrorCode(error))(message.decode("utf-8", "replace"))


def new_error(exception: BaseException) -> int:
    """An error object for Triton from an exception."""
    message = str(exception) or type(exception).__name__
    pointer: int = api().ErrorNew(error_code(exception), message.encode("utf-8", "replace"))
    return pointer


def text(value: Any, what: str) -> bytes:
    """A C string; any other type than str is a TypeError that names the option."""
    if not isinstance(value, str):
        raise TypeError(f"{what} must be str, not {type(value).__name__}: {value!r}")
    if "\0" in value:
        raise InvalidArgumentError(f"{what} must not contain a NUL character, got {value!r}")
    return value.encode("utf-8", "surrogateescape")


def immortal(callback: Any) -> Any:
    """Never free a ctypes callback: Triton's threads may call it while the interpreter shuts down."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(callback))
    return callback


@contextmanager
def parameter_array(values: Mapping[str, Any]) -> Iterator[Any]:
    """A C array of parameters, deleted at the end of the context."""
    pointers: list[int] = []
    # Triton keeps the address of a BYTES parameter, not a copy: the bytes live as long as the array.
    values = {
        name: bytes(value) if isinstance(value, bytearray | memoryview) else value for name, value in values.items()
    }
    try:
        for name, value in values.items():
            pointers.append(_new_parameter(text(name, "parameter name"), name, value))
        yield (c_void_p * max(1, len(pointers)))(*pointers)
    finally:
        for pointer in pointers:
            api().ParameterDelete(pointer)


def _new_parameter(key: bytes, name: str, value: Any) -> int:
    if isinstance(value, bytes):
        pointer = api().ParameterBytesNew(key, value, len(value))
    else:
        kind, holder = _typed_parameter(name, value)
        pointer = api().ParameterNew(key, kind, ctypes.cast(ctypes.pointer(holder), c_void_p))
    if not pointer:
        raise InvalidArgumentError(f"libtritonserver refused parameter {name}={value!r}")
    return int(pointer)


def _typed_parameter(name: str, value: Any) -> tuple[ParameterType, Any]:
    if isinstance(value, str):
        return ParameterType.STRING, ctypes.create_string_buffer(text(value, f"parameter {name}"))
    if isinstance(value, bool):  # before int: a bool is an int
        return ParameterType.BOOL, c_bool(value)
    if isinstance(value, int):
        return ParameterType.INT, c_int64(value)
    if isinstance(value, float):
        return ParameterType.DOUBLE, c_double(value)
    raise InvalidArgumentError(f"Unsupported Value. Can't convert {type(value)} to Parameter ({name})")

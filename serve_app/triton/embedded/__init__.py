"""NVIDIA's `tritonserver` API for a Triton server in this process, on the library of the nvidia-pytriton wheel.

Importing it loads no library and changes no environment variable; starting the first server does both.
"""

from importlib.metadata import PackageNotFoundError, version

from .datatypes import (
    DataType,
    DLDeviceType,
    InstanceGroupKind,
    LogFormat,
    LogLevel,
    MemoryType,
    MetricFormat,
    MetricKind,
    ModelBatchFlag,
    ModelControlMode,
    ModelIndexFlag,
    ModelTxnPropertyFlag,
    RateLimitMode,
)
from .errors import (
    AlreadyExistsError,
    CancelledError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    TritonError,
    UnavailableError,
    UnknownError,
    UnsupportedError,
)
from .iterators import AsyncResponseIterator, Inbox, ResponseIterator, inbox_of
from .memory import MemoryAllocator, MemoryBuffer, default_memory_allocators
from .metrics import LogMessage, Metric, MetricFamily
from .model import Model
from .options import ModelLoadDeviceLimit, Options, RateLimiterResource
from .proof import prove_python_backend
from .request import InferenceRequest
from .response import InferenceResponse
from .server import ModelDictionary, Server
from .tensor import Tensor
from .trace import InferenceTrace, TraceSpan

__all__ = [
    "AlreadyExistsError",
    "AsyncResponseIterator",
    "CancelledError",
    "DLDeviceType",
    "DataType",
    "Inbox",
    "InferenceRequest",
    "InferenceResponse",
    "InferenceTrace",
    "InstanceGroupKind",
    "InternalError",
    "InvalidArgumentError",
    "LogFormat",
    "LogLevel",
    "LogMessage",
    "MemoryAllocator",
    "MemoryBuffer",
    "MemoryType",
    "Metric",
    "MetricFamily",
    "MetricFormat",
    "MetricKind",
    "Model",
    "ModelBatchFlag",
    "ModelControlMode",
    "ModelDictionary",
    "ModelIndexFlag",
    "ModelLoadDeviceLimit",
    "ModelTxnPropertyFlag",
    "NotFoundError",
    "Options",
    "RateLimitMode",
    "RateLimiterResource",
    "ResponseIterator",
    "Server",
    "Tensor",
    "TraceSpan",
    "TritonError",
    "UnavailableError",
    "UnknownError",
    "UnsupportedError",
    "default_memory_allocators",
    "inbox_of",
    "prove_python_backend",
]

# Programs read it as the version of the `tritonserver` package.
try:
    __version__ = version("nvidia-pytriton")
except PackageNotFoundError:
    __version__ = "UNKNOWN"

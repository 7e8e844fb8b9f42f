"""The options of a server, and their form in the C API."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from ctypes import byref, c_void_p
from dataclasses import dataclass, field
from typing import Annotated, Any

from .capi import api, check, text
from .datatypes import InstanceGroupKind, LogFormat, ModelControlMode, RateLimitMode
from .errors import InvalidArgumentError

uint = Annotated[int, ctypes.c_uint]

# The directories of NVIDIA's images. A path with this value is replaced by the wheel's.
DEFAULT_BACKEND_DIRECTORY = "/opt/tritonserver/backends"
DEFAULT_CACHE_DIRECTORY = "/opt/tritonserver/caches"


@dataclass(slots=True)
class RateLimiterResource:
    """The amount of a resource on a device."""

    name: str
    count: uint
    device: uint


@dataclass(slots=True)
class ModelLoadDeviceLimit:
    """The fraction of a device's memory that models may use."""

    kind: InstanceGroupKind
    device: uint
    fraction: float


@dataclass(slots=True)
class Options:
    """What can be set before a server starts; Server.start() validates it."""

    model_repository: str | list[str] = field(default_factory=list)
    server_id: str = "triton"
    model_control_mode: ModelControlMode = ModelControlMode.NONE
    startup_models: list[str] = field(default_factory=list)
    strict_model_config: bool = False

    rate_limiter_mode: RateLimitMode = RateLimitMode.OFF
    rate_limiter_resources: list[RateLimiterResource] = field(default_factory=list)

    pinned_memory_pool_size: uint = 1 << 28
    cuda_memory_pool_sizes: dict[int, uint] = field(default_factory=dict)

    cache_config: dict[str, dict[str, Any]] = field(default_factory=dict)
    cache_directory: str = DEFAULT_CACHE_DIRECTORY

    min_supported_compute_capability: float = 6.0

    exit_on_error: bool = True
    strict_readiness: bool = True
    exit_timeout: uint = 30
    buffer_manager_thread_count: uint = 0
    model_load_thread_count: uint = 4
    model_load_retry_count: uint = 0
    model_namespacing: bool = False
    enable_peer_access: bool = True

    log_file: str | None = None
    log_info: bool = False
    log_warn: bool = False
    log_error: bool = False
    log_format: LogFormat = LogFormat.DEFAULT
    log_verbose: uint = 0

    metrics: bool = True
    gpu_metrics: bool = True
    cpu_metrics: bool = True
    metrics_interval: uint = 2000

    backend_directory: str = DEFAULT_BACKEND_DIRECTORY
    repo_agent_directory: str = "/opt/tritonserver/repoagents"
    model_load_device_limits: list[ModelLoadDeviceLimit] = field(default_factory=list)
    backend_configuration: dict[str, dict[str, str]] = field(default_factory=dict)
    host_policies: dict[str, dict[str, str]] = field(default_factory=dict)
    metrics_configuration: dict[str, dict[str, str]] = field(default_factory=dict)

    def _cascade_log_levels(self) -> None:
        self.log_info = self.log_info or self.log_verbose > 0
        self.log_warn = self.log_warn or self.log_info
        self.log_error = self.log_error or self.log_warn

    def _repositories(self) -> list[str]:
        if self.model_repository is None:
            raise InvalidArgumentError("Model repository must be specified.")
        paths = self.model_repository
        return paths if isinstance(paths, list) else [paths]


class CServerOptions:
    """The options object of the C API, a context manager that deletes it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.pointer = c_void_p()

    def __enter__(self) -> CServerOptions:
        check(api().ServerOptionsNew(byref(self.pointer)))
        try:
            self._options._cascade_log_levels()
            for name, *arguments in _settings(self._options):
                self.set(name, *arguments)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        api().ServerOptionsDelete(self.pointer)

    def set(self, name: str, *arguments: Any) -> None:
        encoded = [text(value, name) if isinstance(value, str) else value for value in arguments]
        try:
            check(getattr(api(), f"ServerOptions{name}")(self.pointer, *encoded))
        except ctypes.ArgumentError as error:
            raise TypeError(f"server option {name} does not take {arguments!r}: {error}") from None


_PLAIN = {
    "server_id": "SetServerId",
    "model_control_mode": "SetModelControlMode",
    "strict_model_config": "SetStrictModelConfig",
    "rate_limiter_mode": "SetRateLimiterMode",
    "pinned_memory_pool_size": "SetPinnedMemoryPoolByteSize",
    "cache_directory": "SetCacheDirectory",
    "min_supported_compute_capability": "SetMinSupportedComputeCapability",
    "exit_on_error": "SetExitOnError",
    "strict_readiness": "SetStrictReadiness",
    "exit_timeout": "SetExitTimeout",
    "buffer_manager_thread_count": "SetBufferManagerThreadCount",
    "model_load_thread_count": "SetModelLoadThreadCount",
    "model_load_retry_count": "SetModelLoadRetryCount",
    "model_namespacing": "SetModelNamespacing",
    "enable_peer_access": "SetEnablePeerAccess",
    "log_info": "SetLogInfo",
    "log_warn": "SetLogWarn",
    "log_error": "SetLogError",
    "log_format": "SetLogFormat",
    "log_verbose": "SetLogVerbose",
    "metrics": "SetMetrics",
    "cpu_metrics": "SetCpuMetrics",
    "gpu_metrics": "SetGpuMetrics",
    "metrics_interval": "SetMetricsInterval",
    "backend_directory": "SetBackendDirectory",
    "repo_agent_directory": "SetRepoAgentDirectory",
}


def _settings(options: Options) -> Iterator[tuple[Any, ...]]:
    """The calls that set the options: a function's name and its arguments."""
    for path in options._repositories():
        yield "SetModelRepositoryPath", path
    for attribute, function in _PLAIN.items():
        yield function, getattr(options, attribute)
    for model in options.startup_models:
        yield "SetStartupModel", model
    for resource in options.rate_limiter_resources:
        yield "AddRateLimiterResource", resource.name, resource.count, resource.device
    for device, size in options.cuda_memory_pool_sizes.items():
        yield "SetCudaMemoryPoolByteSize", device, size
    for cache, settings in options.cache_config.items():
        yield "SetCacheConfig", cache, json.dumps(settings)
    if options.log_file:
        yield "SetLogFile", options.log_file
    for limit in options.model_load_device_limits:
        yield "SetModelLoadDeviceLimit", limit.kind, limit.device, limit.fraction
    yield from _nested("SetHostPolicy", options.host_policies)
    yield from _nested("SetMetricsConfig", options.metrics_configuration)
    yield from _nested("SetBackendConfig", options.backend_configuration)


def _nested(function: str, groups: dict[str, dict[str, str]]) -> Iterator[tuple[Any, ...]]:
    for group, settings in groups.items():
        for name, value in settings.items():
            yield function, group, name, value

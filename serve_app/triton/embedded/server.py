"""The server: its start and stop, its model repositories and its models."""

from __future__ import annotations

import time
from collections.abc import Mapping
from ctypes import byref, c_bool
from dataclasses import replace
from typing import Any

from . import library
from .capi import parameter_array, text
from .datatypes import MetricFormat, ModelControlMode, ModelIndexFlag
from .errors import InvalidArgumentError, UnavailableError
from .model import Model
from .options import DEFAULT_BACKEND_DIRECTORY, DEFAULT_CACHE_DIRECTORY, CServerOptions, Options
from .running import RunningServer
from .stubs import StubCleanup, require_shared_memory, stub_count, stub_count_of_load, sweep


class ModelDictionary(dict[Any, Any]):
    """Models by (name, version); a name alone gives the model without a version."""

    def __init__(self, server: RunningServer, models: list[Model]) -> None:
        super().__init__({(model.name, model.version): model for model in models})
        self._server = server

    def __getitem__(self, key: str | tuple[str, int]) -> Model:
        if isinstance(key, tuple):
            if key in self:
                model: Model = super().__getitem__(key)
                return model
        elif any(name == key for name, _ in self):
            return Model(self._server, key)
        raise KeyError(f"Unknown Model: {key}")


class Server:
    """A Triton server in this process."""

    def __init__(self, options: Options | None = None, **kwargs: Any) -> None:
        self.options = options if options is not None else Options(**kwargs)
        self._running: RunningServer | None = None

    def start(
        self,
        wait_until_ready: bool = False,
        polling_interval: float = 0.1,
        timeout: float | None = None,
    ) -> Server:
        """Start the server and load the models that its control mode and `startup_models` name."""
        if self._running is not None:
            raise InvalidArgumentError("Server already started")
        self._running = _launch(self.options)
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            while wait_until_ready and not self.ready():
                if deadline is not None and time.monotonic() >= deadline:
                    raise UnavailableError("Timeout before ready")
                time.sleep(polling_interval)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Let inferences finish (for at most exit_timeout seconds), unload the models, delete the server."""
        running = self._require_started()
        self._running = None
        running.stop()

    def _require_started(self) -> RunningServer:
        if self._running is None:
            raise InvalidArgumentError("Server not started")
        return self._running

    def live(self) -> bool:
        return self._flag("ServerIsLive")

    def ready(self) -> bool:
        return self._flag("ServerIsReady")

    def _flag(self, function: str) -> bool:
        result = c_bool()
        self._require_started().call(function, byref(result))
        return result.value

    def metadata(self) -> dict[str, Any]:
        """Name, version and extensions of the server."""
        result: dict[str, Any] = self._require_started().json("ServerMetadata")
        return result

    def metrics(self, metric_format: MetricFormat = MetricFormat.PROMETHEUS) -> str:
        """The metrics of the server and of the program, in the Prometheus text format."""
        return self._require_started().metrics(metric_format)

    def model(self, model_name: str, model_version: int = -1) -> Model:
        """A model by name, which is not looked up before it is used."""
        return Model(self._require_started(), model_name, model_version)

    def models(self, exclude_not_ready: bool = False) -> ModelDictionary:
        """The models of all repositories, with their state."""
        running, flags = self._require_started(), ModelIndexFlag.READY if exclude_not_ready else 0
        index = running.json("ServerModelIndex", flags)
        return ModelDictionary(running, [_indexed_model(running, **entry) for entry in index])

    def load(self, model_name: str, parameters: Mapping[str, str | int | bool | bytes] | None = None) -> Model:
        """Load a model and wait for it; `config` and `file:…` parameters override the repository."""
        running, name = self._require_started(), text(model_name, "model name")
        needed = stub_count_of_load(self.options._repositories(), model_name, parameters)
        if needed:
            _require_python_backend(self.options, needed)
        if parameters is None:
            running.call("ServerLoadModel", name)
        else:
            with parameter_array(parameters) as array:
                running.call("ServerLoadModelWithParameters", name, array, len(parameters))
        return self.model(model_name)

    def unload(
        self,
        model: str | Model,
        unload_dependents: bool = False,
        wait_until_unloaded: bool = False,
        polling_interval: float = 0.1,
        timeout: float | None = None,
    ) -> None:
        """Unload a model after its inferences in progress."""
        name = model if isinstance(model, str) else model.name
        function = "ServerUnloadModelAndDependents" if unload_dependents else "ServerUnloadModel"
        self._require_started().unload(function, text(name, "model name"))
        deadline = None if timeout is None else time.monotonic() + timeout
        while wait_until_unloaded and self._has_loaded(name):
            if deadline is not None and time.monotonic() >= deadline:
                return
            time.sleep(polling_interval)

    def _has_loaded(self, name: str) -> bool:
        return any(key[0] == name and model.state not in (None, "UNAVAILABLE") for key, model in self.models().items())

    def poll_model_repository(self) -> None:
        """Load and unload what has changed in the repositories; only in mode POLL."""
        self._require_started().call("ServerPollModelRepository")

    def register_model_repository(self, repository_path: str, name_mapping: Mapping[str, str] | None = None) -> None:
        """Add a repository, with other names for some of its models; only in mode EXPLICIT."""
        mapping = name_mapping or {}
        path = text(repository_path, "repository path")
        with parameter_array(mapping) as array:
            self._require_started().call("ServerRegisterModelRepository", path, array, len(mapping))

    def unregister_model_repository(self, repository_path: str) -> None:
        """Remove a repository; only in mode EXPLICIT."""
        path = text(repository_path, "repository path")
        self._require_started().call("ServerUnregisterModelRepository", path)


def _indexed_model(
    server: RunningServer,
    name: str,
    version: str | int = -1,
    state: str | None = None,
    reason: str | None = None,
    **_: Any,
) -> Model:
    return Model(server, name, int(version), state, reason)


def _launch(options: Options) -> RunningServer:
    options = _with_own_directories(options)
    settings = options.backend_configuration.get("python", {})
    loads_all = options.model_control_mode != ModelControlMode.EXPLICIT
    names = None if loads_all else options.startup_models
    _require_python_backend(options, stub_count(options._repositories(), names))
    library.prepare_environment()
    sweep()
    cleanup = StubCleanup()
    try:
        with CServerOptions(options) as prepared:
            region_prefix = settings.get("shm-region-prefix-name", "") + cleanup.prefix
            prepared.set("SetBackendConfig", "python", "shm-region-prefix-name", region_prefix)
            return RunningServer(prepared.pointer, cleanup, options.exit_timeout)
    except BaseException:
        cleanup.dismiss()
        raise


def _require_python_backend(options: Options, stubs: int) -> None:
    """Check what would make a stub fail without a clear message."""
    if stubs:
        library.require_numpy_1()
    require_shared_memory(options.backend_configuration.get("python", {}), stubs)


def _with_own_directories(options: Options) -> Options:
    changes: dict[str, Any] = {}
    if options.backend_directory == DEFAULT_BACKEND_DIRECTORY:
        changes["backend_directory"] = library.backend_directory()
    if options.cache_directory == DEFAULT_CACHE_DIRECTORY:
        changes["cache_directory"] = str(library.wheel_directory() / "tritonserver" / "caches")
    return replace(options, **changes)

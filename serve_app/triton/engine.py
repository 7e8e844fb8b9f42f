"""The facade over a Triton server in this process: starts it, loads models, infers, and translates its errors."""

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from serve_app.errors import (
    EngineError,
    ModelLoadError,
    QueueFullError,
    ReplicaKilledError,
    ReplicaLostError,
    ServeAppError,
    UnavailableError,
)
from serve_app.settings import TritonSettings
from serve_app.telemetry.tracing import is_traced, request_id
from serve_app.triton.binding import as_array, find_tritonserver, one_line, translated
from serve_app.triton.overlay import Overlay, Preparation
from serve_app.triton.repository import ModelRepository
from serve_app.triton.stubs import was_killed
from serve_app.triton.timing import Timing, record_spans

logger = logging.getLogger(__name__)

# Unloading a Python model takes more than a second, and a server that isn't given the time stays in memory.
MIN_EXIT_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True)
class StepTimes:
    """One model's share of a request."""

    model: str
    queue_ms: float
    infer_ms: float


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's outputs, and the times of the models that computed them, where available."""

    outputs: Mapping[str, npt.NDArray[Any]]
    steps: tuple[StepTimes, ...]

    @property
    def queue_ms(self) -> float:
        return sum(step.queue_ms for step in self.steps)

    @property
    def infer_ms(self) -> float:
        return sum(step.infer_ms for step in self.steps)


class Engine:
    """A Triton server over one repository, narrowed to the models of one deployment."""

    def __init__(
        self,
        repository: ModelRepository,
        settings: TritonSettings,
        log_file: Path | None = None,
        preparation: Preparation | None = None,
    ) -> None:
        self.triton = find_tritonserver()
        self.repository = repository
        self._settings = settings
        self._log_file = log_file
        self._preparation = preparation or Preparation(settings.instances)
        self._server: Any = None
        self._dead_models: dict[str, str] = {}  # whose Python-backend process has ended, with Triton's message
        self.rejected = 0  # requests that found a queue full, or waited in it too long
        self._loaded: dict[str, None] = {}  # by request, in order
        self._overlay: Overlay | None = None

    def start(self) -> None:
        """Start the server with every model, or raise the error of the first that fails and leave nothing behind."""
        unknown = set(self._settings.instances) - set(self.repository.selected)
        if unknown:
            raise ModelLoadError(f"instances: no model {', '.join(sorted(unknown))} is served here")
        for model in self.repository.selected.values():
            _ = model.config  # an unreadable file is reported before anything starts
        try:
            with translated("the engine can't start"):
                self._server = self.triton.Server(self._options())
                self._server.start()
            self._require_no_failure()
            self._prove_python_backend()
        except BaseException:
            with suppress(ServeAppError):  # the caller gets the error of the start
                self.stop()
            raise

    @property
    def server(self) -> Any:
        """Triton's server; after `stop` there is none."""
        if self._server is None:
            raise UnavailableError("the Triton server is stopping")
        return self._server

    def _options(self) -> Any:
        modes = self.triton.ModelControlMode
        polls = self._settings.control_mode == "poll"
        shared_memory = str(self._settings.shared_memory_mib << 20)
        cuda_pool, cache = self._settings.cuda_pool_mib, self._settings.cache_mib
        return self.triton.Options(
            model_repository=self._repository_path(),
            # mode `none` names its models too: a repository may hold some that another deployment serves
            model_control_mode=modes.POLL if polls else modes.EXPLICIT,
            startup_models=[] if polls else list(self.repository.selected),
            exit_on_error=False,
            strict_model_config=self._asks_no_model(),
            strict_readiness=False,  # a model that is loading doesn't make the others unready
            exit_timeout=max(MIN_EXIT_TIMEOUT_S, int(self._settings.drain_timeout_s)),
            gpu_metrics=os.path.exists("/dev/nvidiactl"),
            cuda_memory_pool_sizes={} if cuda_pool is None else {0: cuda_pool << 20},
            pinned_memory_pool_size=self._settings.pinned_pool_mib << 20,
            cache_config={"local": {"size": cache << 20}} if cache else {},
            log_file=str(self._log_file) if self._log_file else None,
            log_info=self._log_file is not None,
            backend_configuration={"python": {"shm-default-byte-size": shared_memory}},
        )

    def _asks_no_model(self) -> bool:
        """Triton starts each Python model once more, to ask what its config leaves out, which takes as long again."""
        models = self.repository.selected.values()
        return self._settings.control_mode == "none" and all(model.is_exported for model in models)

    def _repository_path(self) -> str:
        self._overlay = self._preparation.overlay_of(self.repository)
        if self._overlay and self._settings.control_mode == "poll":
            raise ModelLoadError(
                f"control_mode poll serves {self.repository.path} as it is, but some of its models need another config "
                "or a TensorRT plan: use control_mode explicit"
            )
        return str(self._overlay.path if self._overlay else self.repository.path)

    def _require_no_failure(self) -> None:
        for model in self.server.models().values():
            if model.state == "UNAVAILABLE" and model.reason != "unloaded":
                raise ModelLoadError(f"model {model.name!r} can't be loaded: {one_line(model.reason)}")

    def _prove_python_backend(self) -> None:
        """Send known tensors through the Python backend: one built for another NumPy returns garbage, and no error."""
        prove = getattr(self.triton, "prove_python_backend", None)
        if prove and any(model.instances for model in self.repository.selected.values()):
            with translated("the Python backend gives wrong answers"):
                prove(None if self._settings.control_mode == "poll" else self.server)

    def load(self, name: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Load or reload a model and wait until it is ready."""
        server = self.server
        if self._overlay:
            self._overlay.refresh(name)
        try:
            server.load(name, parameters)
            self._loaded[name] = None
        except self.triton.TritonError as problem:
            raise ModelLoadError(
                f"model {name!r} can't be loaded: {one_line(self._reason(name) or str(problem))}"
            ) from None

    def _reason(self, name: str) -> str:
        reasons = [model.reason for model in self.server.models().values() if model.name == name and model.reason]
        return "; ".join(reasons)

    def unload(self, name: str, dependents: bool = False) -> None:
        with translated(f"model {name!r} can't be unloaded"):
            self.server.unload(name, unload_dependents=dependents)

    def poll(self) -> None:
        """Load and unload what changed in the repository."""
        with translated("the repository can't be polled"):
            self.server.poll_model_repository()

    def require_health(self) -> None:
        """Raise what is wrong. Triton goes on calling a model ready whose process died; that is raised here too."""
        for message in self._dead_models.values():
            raise EngineError(message)
        with translated("the engine failed"):
            if not (self.server.live() and self.server.ready()):
                raise UnavailableError("the Triton server isn't ready")
            if self._settings.control_mode == "none":
                for name in self.repository.selected:
                    if not self.server.model(name).ready():
                        raise UnavailableError(f"model {name!r} isn't ready")

    def index(self) -> list[dict[str, str]]:
        """Triton's index: every version of every model; without model control only the selected models."""
        with translated("the engine failed"):
            models = self.server.models().values()
            hidden = self._settings.control_mode == "none"
            rows = [_index_row(model) for model in models if not hidden or model.name in self.repository.selected]
            return rows + self._loaded_from_requests({row["name"] for row in rows})

    def _loaded_from_requests(self, listed: set[str]) -> list[dict[str, str]]:
        """Models whose files came with their load request: Triton serves them, but its index omits them."""
        names = [name for name in self._loaded if name not in listed and self.server.model(name).ready()]
        return [
            {"name": name, "version": version, "state": "READY"}
            for name in names
            for version in self.server.model(name).metadata()["versions"]
        ]

    def model(self, name: str, version: int = -1) -> Any:
        """Triton's handle on a model, loaded or not; -1 is the newest version."""
        return self.server.model(name, version)

    def server_metadata(self) -> dict[str, Any]:
        with translated("the engine failed"):
            return dict(self.server.metadata())

    async def infer(
        self,
        name: str,
        inputs: Mapping[str, npt.NDArray[Any]],
        parameters: Mapping[str, str | int | bool] | None = None,
        timeout_us: int = 0,
    ) -> Answer:
        """One request, one response; it is cancelled when the caller is."""
        identity = request_id()
        with self.watching(name), translated(f"model {name!r} failed", identity):
            model = self.model(name)
            request = model.create_request(
                request_id=identity or None, inputs=dict(inputs), parameters=dict(parameters or {}), timeout=timeout_us
            )
            timing = Timing(request)
            responses = model.async_infer(request)
            try:
                response = await anext(responses)
            except asyncio.CancelledError:
                responses.cancel()
                raise
            outputs = {key: as_array(tensor) for key, tensor in response.outputs.items()}
        computed = await timing.computed()
        if is_traced():
            record_spans(computed, identity)
        return Answer(outputs, tuple(StepTimes(span.model, span.queue_ms, span.compute_ms) for span in computed))

    @contextmanager
    def watching(self, name: str) -> Iterator[None]:
        """Count refusals, and remember that a Python-backend process died: Triton doesn't start it again.

        What the process was at work on is tried elsewhere if it was killed from outside; if the request was the cause,
        it would kill the next one too.
        """
        if name in self._dead_models:
            raise ReplicaLostError(f"model {name!r} lost its Python-backend process; this replica will be replaced")
        try:
            yield
        except QueueFullError:
            self.rejected += 1
            raise
        except EngineError as problem:
            if "Stub process" in problem.message and "not healthy" in problem.message:
                self._dead_models[name] = problem.message
                logger.error(f"model {name!r} lost its Python-backend process; this replica will be replaced")
                if was_killed():
                    raise ReplicaKilledError(f"the process of model {name!r} was killed; try again") from None
            raise

    def metrics(self) -> str:
        with translated("the engine failed"):
            return str(self.server.metrics())

    def stop(self) -> None:
        """Let work in flight finish, then stop; safe to call again."""
        server, self._server = self._server, None
        try:
            if server is not None:
                with translated("the engine didn't stop in time"):
                    server.stop()
        finally:
            if self._overlay:
                self._overlay.close()


def _index_row(model: Any) -> dict[str, str]:
    """A model that was never loaded has neither version nor state."""
    version = {"version": str(model.version)} if model.version != -1 else {}
    state = {"state": model.state} if model.state else {}
    reason = {"reason": one_line(model.reason)} if model.reason else {}
    return {"name": model.name} | version | state | reason

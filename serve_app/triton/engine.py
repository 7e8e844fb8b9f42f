"""The one facade over a Triton server in this process: starts it, loads models, infers, and translates its errors."""

import asyncio
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from serve_app.errors import (
    DeadlineExceededError,
    EngineError,
    InvalidRequestError,
    ModelLoadError,
    NotFoundError,
    ServeAppError,
    UnavailableError,
)  # fmt: skip
from serve_app.settings import TritonSettings
from serve_app.triton.repository import ModelRepository

logger = logging.getLogger(__name__)

# Unloading a Python model takes more than a second; a server that is cut short stays in memory.
MIN_EXIT_TIMEOUT_S = 5
# Timestamps come when Triton has closed its books on a request, an instant after the answer.
TRACE_PATIENCE_S = 0.5


@cache  # every request asks, and an import that fails searches the path anew each time
def find_tritonserver() -> ModuleType:
    """NVIDIA's package where it is installed, as in its images; else ours with the same API."""
    try:
        import tritonserver
    except ImportError:
        from serve_app.triton import embedded as tritonserver
    return tritonserver  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class StepTimes:
    """One model's share of a request."""

    model: str
    queue_ms: float
    infer_ms: float


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's outputs, and the times of the models that made them (none where Triton can't tell)."""

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

    def __init__(self, repository: ModelRepository, settings: TritonSettings, log_file: Path | None = None) -> None:
        self.triton = find_tritonserver()
        self.repository = repository
        self._settings = settings
        self._log_file = log_file
        self._server: Any = None
        self._dead_model: str | None = None
        self._overlay: tempfile.TemporaryDirectory[str] | None = None

    def start(self) -> None:
        """Start the server with every model, or raise what the first failing one says."""
        unknown = set(self._settings.instances) - set(self.repository.selected)
        if unknown:
            raise ModelLoadError(f"instances: no model {', '.join(sorted(unknown))} is served here")
        for model in self.repository.selected.values():
            _ = model.config  # an unreadable file is told before anything starts
        with translated("the engine can't start"):
            server = self.triton.Server(self._options())
            server.start()
            self._server = server
        try:
            self._require_no_failure()
            self._prove_python_backend()
        except BaseException:
            self.stop()
            raise

    def _options(self) -> Any:
        modes = self.triton.ModelControlMode
        polls = self._settings.control_mode == "poll"
        shared_memory = str(self._settings.shared_memory_mib << 20)
        return self.triton.Options(
            model_repository=self._repository_path(),
            # `none` names its models too: a repository may hold some that another deployment serves.
            model_control_mode=modes.POLL if polls else modes.EXPLICIT,
            startup_models=[] if polls else list(self.repository.selected),
            exit_on_error=False,
            strict_readiness=False,  # a model that comes or goes doesn't make the others unready
            exit_timeout=max(MIN_EXIT_TIMEOUT_S, int(self._settings.drain_timeout_s)),
            gpu_metrics=os.path.exists("/dev/nvidiactl"),
            log_file=str(self._log_file) if self._log_file else None,
            log_info=self._log_file is not None,
            backend_configuration={"python": {"shm-default-byte-size": shared_memory}},
        )

    def _repository_path(self) -> str:
        if not self._settings.instances:
            return str(self.repository.path)
        self._overlay = tempfile.TemporaryDirectory(prefix="serve_app-repository-")
        self.repository.write_overlay(Path(self._overlay.name), self._settings.instances)
        return self._overlay.name

    def _require_no_failure(self) -> None:
        for model in self._server.models().values():
            if model.state == "UNAVAILABLE" and model.reason != "unloaded":
                raise ModelLoadError(f"model {model.name!r} can't be loaded: {one_line(model.reason)}")

    def _prove_python_backend(self) -> None:
        """Known tensors through the Python backend: one that is built for another NumPy gives garbage, and no error."""
        prove = getattr(self.triton, "prove_python_backend", None)
        if prove and any(model.instances for model in self.repository.selected.values()):
            with translated("the Python backend gives wrong answers"):
                prove(None if self._settings.control_mode == "poll" else self._server)

    def load(self, name: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Load or reload a model and wait until it is ready."""
        try:
            self._server.load(name, parameters)
        except self.triton.TritonError as problem:
            raise ModelLoadError(
                f"model {name!r} can't be loaded: {one_line(self._reason(name) or str(problem))}"
            ) from None

    def _reason(self, name: str) -> str:
        reasons = [model.reason for model in self._server.models().values() if model.name == name and model.reason]
        return "; ".join(reasons)

    def unload(self, name: str, dependents: bool = False) -> None:
        with translated(f"model {name!r} can't be unloaded"):
            self._server.unload(name, unload_dependents=dependents)

    def poll(self) -> None:
        """Take over what changed in the repository."""
        with translated("the repository can't be polled"):
            self._server.poll_model_repository()

    def require_health(self) -> None:
        """Raise what is wrong; a model whose process died says so here, since Triton goes on calling it ready."""
        if self._dead_model:
            raise EngineError(self._dead_model)
        with translated("the engine doesn't answer"):
            if not (self._server.live() and self._server.ready()):
                raise UnavailableError("the Triton server isn't ready")
            if self._settings.control_mode == "none":
                for name in self.repository.selected:
                    if not self._server.model(name).ready():
                        raise UnavailableError(f"model {name!r} isn't ready")

    def index(self) -> list[dict[str, Any]]:
        """State and reason of every version of every model."""
        with translated("the engine doesn't answer"):
            models = self._server.models().values()
        return [{"name": m.name, "version": str(m.version), "state": m.state, "reason": m.reason or ""} for m in models]

    def config(self, name: str, version: int = -1) -> dict[str, Any]:
        with translated(f"model {name!r} has no configuration"):
            return dict(self._server.model(name, version).config())

    def statistics(self, name: str, version: int = -1) -> dict[str, Any]:
        with translated(f"model {name!r} has no statistics"):
            return dict(self._server.model(name, version).statistics())

    async def infer(
        self,
        name: str,
        inputs: Mapping[str, npt.NDArray[Any]],
        parameters: Mapping[str, str | int | bool] | None = None,
        timeout_us: int = 0,
    ) -> Answer:
        """One request, one response; a caller that gives up cancels it."""
        loop = asyncio.get_running_loop()
        traced = asyncio.Event()
        with self._watching(name), translated(f"model {name!r} failed"):
            model = self._server.model(name)
            request = model.create_request(inputs=dict(inputs), parameters=dict(parameters or {}), timeout=timeout_us)
            trace = self._trace(request, loop, traced)
            responses = model.async_infer(request)
            try:
                response = await anext(responses)
            except asyncio.CancelledError:
                responses.cancel()
                raise
            outputs = {key: np.from_dlpack(tensor) for key, tensor in response.outputs.items()}
        return Answer(outputs, await _steps_of(trace, traced))

    @contextmanager
    def _watching(self, name: str) -> Iterator[None]:
        """Remember that a process of the Python backend died: Triton doesn't start it again."""
        try:
            yield
        except EngineError as problem:
            if "Stub process" in problem.message and "not healthy" in problem.message:
                self._dead_model = problem.message
                logger.error(f"model {name!r} has lost its process")
            raise

    def _trace(self, request: Any, loop: asyncio.AbstractEventLoop, traced: asyncio.Event) -> Any:
        """Only the embedded engine offers timestamps."""
        if not hasattr(self.triton, "InferenceTrace"):
            return None
        request.trace = self.triton.InferenceTrace(lambda: _set_from_thread(loop, traced))
        return request.trace

    def metrics(self) -> str:
        return str(self._server.metrics())

    def stop(self) -> None:
        """Let work in flight finish, then stop; safe to call again."""
        server, self._server = self._server, None
        try:
            if server is not None:
                with translated("the engine didn't stop in time"):
                    server.stop()
        finally:
            if self._overlay:
                self._overlay.cleanup()


def one_line(reason: str) -> str:
    """What a backend says, without the stack that the Python backend adds."""
    return " ".join(reason.split("\nAt:\n")[0].split())


def _set_from_thread(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:
        logger.debug("the loop is closed: nobody waits for the timestamps")


async def _steps_of(trace: Any, traced: asyncio.Event) -> tuple[StepTimes, ...]:
    if trace is None:
        return ()
    try:
        await asyncio.wait_for(traced.wait(), TRACE_PATIENCE_S)
    except TimeoutError:
        return ()
    return tuple(StepTimes(span.model, span.queue_ms, span.compute_ms) for span in trace.computed)


@cache
def translations() -> tuple[tuple[type[Exception], type[ServeAppError]], ...]:
    """Triton's error classes with ours, the general one last."""
    triton = find_tritonserver()
    return (
        (triton.InvalidArgumentError, InvalidRequestError),
        (triton.NotFoundError, NotFoundError),
        (triton.UnavailableError, UnavailableError),
        (triton.CancelledError, DeadlineExceededError),
        (triton.UnsupportedError, InvalidRequestError),
        (triton.TritonError, EngineError),
    )


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Triton's typed errors as ours: the one place where that happens."""
    try:
        yield
    except find_tritonserver().TritonError as problem:
        for theirs, ours in translations():
            if isinstance(problem, theirs):
                raise ours(f"{what}: {one_line(str(problem))}") from None
        raise

"""The plans of the GPU that this process would use: found or built when a model asks for its own."""

from functools import cached_property
from pathlib import Path

from serve_app.errors import ModelLoadError
from serve_app.triton.plans.builder import Profile
from serve_app.triton.plans.cache import PlanCache
from serve_app.triton.plans.child import find_tensorrt
from serve_app.triton.plans.gpu import Gpu, find_gpu, library_version
from serve_app.triton.plans.progress import Report


class LocalPlans:
    """Nothing is looked for before the first plan is wanted."""

    def __init__(self, folder: Path, report: Report) -> None:
        self._folder = folder
        self._report = report

    def plan_for(self, name: str, graph: Path, max_batch: int) -> Path:
        """For any batch up to `max_batch`, and fastest in the middle, where queues are neither empty nor full."""
        largest = max(1, max_batch)
        profile = Profile(1, max(1, largest // 2), largest)
        try:
            if self._library and (plan := PlanCache(self._folder, self._gpu, self._library).find(graph, profile)):
                return plan  # needs no package, which images of Triton don't have
            cache = PlanCache(self._folder, self._gpu, self._builder)
        except ModelLoadError as problem:
            raise ModelLoadError(f"model {name!r} can't be loaded: {problem}") from None
        return cache.plan_for(graph, profile, self._report, name)

    def missing(self) -> str | None:
        """Why no plan can be built here; None where nothing is in the way."""
        try:
            _ = self._gpu, self._builder
        except ModelLoadError as problem:
            return problem.message
        return None

    @cached_property
    def _gpu(self) -> Gpu:
        gpu = find_gpu()
        if gpu is None:
            raise ModelLoadError("TensorRT's plans are built on the GPU that runs them, and this process sees none")
        return gpu

    @cached_property
    def _library(self) -> str | None:
        """The version of the library that Triton's backend loads."""
        return library_version()

    @cached_property
    def _builder(self) -> str:
        """The version of the package that builds; the server must have the same."""
        version = find_tensorrt()
        if version is None:
            wanted = f"=={self._library}" if self._library else ", in the version that Triton has"
            raise ModelLoadError(
                f"its plan for {self._gpu.name} isn't built, and there is no Python package to build it with: "
                f"install tensorrt{wanted}, or put model.plan beside model.onnx"
            )
        short = ".".join(version.split(".")[:3])
        if self._library not in (None, short):
            raise ModelLoadError(
                f"Triton has TensorRT {self._library}, and the Python package that would build its plan is {version}: "
                f"install tensorrt=={self._library}"
            )
        return short

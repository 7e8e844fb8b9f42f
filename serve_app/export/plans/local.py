"""The plans of the GPU that this process would use: found or built when a model asks for its own."""

from functools import cached_property
from pathlib import Path

from serve_app.errors import ModelLoadError
from serve_app.export.plans.builder import Profile
from serve_app.export.plans.cache import PlanCache
from serve_app.export.plans.child import find_tensorrt
from serve_app.export.plans.gpu import find_gpu
from serve_app.export.plans.progress import Report


class LocalPlans:
    """Nothing is looked for before the first plan is wanted."""

    def __init__(self, folder: Path, report: Report) -> None:
        self._folder = folder
        self._report = report

    def plan_for(self, name: str, graph: Path, max_batch: int) -> Path:
        """For any batch up to `max_batch`, and fastest in the middle, where queues are neither empty nor full."""
        largest = max(1, max_batch)
        try:
            cache = self._cache
        except ModelLoadError as problem:
            raise ModelLoadError(f"model {name!r} can't be loaded: {problem}") from None
        return cache.plan_for(graph, Profile(1, max(1, largest // 2), largest), self._report, name)

    def missing(self) -> str | None:
        """Why no plan can be had here; None where nothing is in the way."""
        try:
            _ = self._cache
        except ModelLoadError as problem:
            return problem.message
        return None

    @cached_property
    def _cache(self) -> PlanCache:
        gpu = find_gpu()
        if gpu is None:
            raise ModelLoadError("TensorRT's plans are built on the GPU that runs them, and this process sees none")
        version = find_tensorrt()
        if version is None:
            raise ModelLoadError(
                f"there is no Python package `tensorrt` to build its plan for {gpu.name} with: install the version "
                "that Triton has, or put model.plan beside model.onnx"
            )
        return PlanCache(self._folder, gpu, version)

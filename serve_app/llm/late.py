"""A language model's deployment until its replica has begun: vLLM is imported there, after the process has given way.

A router that starts at the same time would have to share the processors with the import.
"""

import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

from serve_app.errors import ModelLoadError
from serve_app.llm import engine_process
from serve_app.settings import LanguageModelSettings
from serve_app.telemetry.logging import keep_handlers
from serve_app.telemetry.priority import in_a_thread_that_gives_way
from serve_app.telemetry.replica import begin_replica


class LateLanguageModel:
    """Holds a `LanguageModel`."""

    async def __init__(self, settings: LanguageModelSettings, *, in_router: bool = False) -> None:  # type: ignore[misc]
        """In a router's process the engine's alone gives way, and not what answers requests."""
        begin_replica(engine=None if in_router else settings.priority)
        alone = settings.accelerator == "cpu" and settings.engine.get("data_parallel_size", 1) == 1
        if alone:
            await in_a_thread_that_gives_way(engine_process.begin_import, settings.priority)
        # vLLM's own lines go to the worker's log, as its engine's do, and not through Serve's in colours
        with keep_handlers(), redirect_stdout(sys.__stdout__), redirect_stderr(sys.__stderr__):
            from serve_app.llm.config import build_llm_config
            from serve_app.llm.replica import LanguageModel

        if alone:
            engine_process.use_for_engine()
        try:
            config = build_llm_config(settings)
        except (ValueError, TypeError) as problem:
            raise ModelLoadError(f"model '{settings.name}' can't be loaded: {problem}") from None
        model = object.__new__(LanguageModel)
        self._model = model
        await LanguageModel.__init__(model, config)

    def __getattr__(self, name: str) -> Any:
        """The router's calls, and Serve's: health, autoscaling."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._model, name)

    async def close(self) -> None:
        if "_model" in vars(self):
            await self._model.__del__()

    async def __del__(self) -> None:
        """Serve calls this once no request is in flight any more."""
        await self.close()

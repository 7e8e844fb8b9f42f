"""Warm-up: a probe request to every model of a replica, which triggers what engines compile or allocate lazily."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from serve_app.errors import ServeAppError

logger = logging.getLogger("ray.serve")
Probe = Callable[[], Awaitable[None]]  # raises if the model fails


class WarmUp:
    """Runs at the start of a replica and on request, one run at a time, and keeps the progress of the last run."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        """`probes` has a probe for each model, by the model's name."""
        self._probes = probes
        self._running = False
        self._task: asyncio.Task[None] | None = None  # a running task without a reference may be collected
        self._progress: dict[str, dict[str, Any]] = {model: {"state": "pending"} for model in probes}

    def start(self) -> None:
        """Run in the background, unless a run is already in progress."""
        if not self._running:
            self._running = True
            self._progress = {model: {"state": "pending"} for model in self._probes}
            self._task = asyncio.create_task(self._run_in_background())

    async def run(self) -> None:
        """Probe the models one after another; raises the first error."""
        self._running = True
        try:
            for model, probe in self._probes.items():
                await self._warm(model, probe)
        finally:
            self._running = False

    async def _warm(self, model: str, probe: Probe) -> None:
        self._progress[model] = {"state": "warming"}
        started = time.monotonic()
        try:
            await probe()
        except Exception as problem:
            message = str(problem) if isinstance(problem, ServeAppError) else "see the replica's log"
            self._progress[model] = {"state": "failed", "error": message}
            raise
        self._progress[model] = {"state": "ready", "seconds": round(time.monotonic() - started, 3)}

    async def _run_in_background(self) -> None:
        try:
            await self.run()
        except Exception:
            logger.exception("warm-up failed")

    def progress(self) -> dict[str, dict[str, Any]]:
        """The state of each model (pending, warming, ready or failed), with its seconds or its error."""
        return self._progress

"""Warm-up: a request to every model of a replica, so that the first caller doesn't pay for what is made lazily."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from serve_app.errors import ServeAppError

logger = logging.getLogger("ray.serve")
Probe = Callable[[], Awaitable[None]]  # raises when the model can't answer


class WarmUp:
    """Runs at the start of a replica, and again whenever somebody asks; tells how far it is."""

    def __init__(self, probes: Mapping[str, Probe]) -> None:
        """`probes` are by the name of the model that each one asks."""
        self._probes = probes
        self._running = False
        self._task: asyncio.Task[None] | None = None  # a reference, or it could be collected at work
        self._progress: dict[str, dict[str, Any]] = {model: {"state": "pending"} for model in probes}

    def start(self) -> None:
        """In the background; a run that is under way goes on instead of a second one."""
        if not self._running:
            self._running = True
            self._progress = {model: {"state": "pending"} for model in self._probes}
            self._task = asyncio.create_task(self._run_quietly())

    async def run(self) -> None:
        """One model after the other; raises when one of them can't answer."""
        self._running = True
        try:
            await self._probe_all()
        finally:
            self._running = False

    async def _probe_all(self) -> None:
        for model, probe in self._probes.items():
            self._progress[model] = {"state": "warming"}
            began = time.monotonic()
            try:
                await probe()
            except Exception as problem:
                known = isinstance(problem, ServeAppError)
                self._progress[model] = {"state": "failed", "error": str(problem) if known else "the log says why"}
                raise
            self._progress[model] = {"state": "ready", "seconds": round(time.monotonic() - began, 3)}

    async def _run_quietly(self) -> None:
        try:
            await self.run()
        except Exception:
            logger.exception("warm-up failed")  # the progress says it too

    def progress(self) -> dict[str, dict[str, Any]]:
        """The state of each model: pending, warming, ready or failed."""
        return self._progress

"""Model control that outlives a replica: replicas that start later perform earlier loads and unloads too."""

import asyncio
import hashlib
import logging
import math
import pickle
import time
from typing import Any, Protocol

from ray.experimental import internal_kv

from serve_app.errors import ForbiddenError, ModelLoadError, NotFoundError, ServeAppError
from serve_app.settings import DetectionSettings, TritonSettings
from serve_app.triton.engine import Engine
from serve_app.types.changes import FILE_PREFIX, ModelChange

logger = logging.getLogger("ray.serve")
RETRY_INTERVAL_S = 60.0  # a failing load may take minutes each time
REFUSALS = {
    "poll": "explicit model load / unload is not allowed if polling is enabled",  # Triton's own words
    "none": "explicit model load / unload is not allowed: set control_mode to explicit in the configuration",
}


class ChangeStore(Protocol):
    """Where the latest change of each model is kept."""

    def version(self) -> bytes: ...

    def changes(self) -> list[ModelChange]: ...

    def record(self, change: ModelChange) -> None: ...


class ClusterStore:
    """Ray's own key-value store: it lives as long as the cluster, and with an external Redis longer."""

    def __init__(self, triton: TritonSettings, detection: DetectionSettings) -> None:
        # Loads belong to the configuration they were made under: another configuration starts without them.
        digest = hashlib.sha256((triton.model_dump_json() + detection.model_dump_json()).encode()).hexdigest()[:16]
        self._prefix = f"serve_app:models:{triton.name}:{digest}:".encode()
        self._version_key = b"serve_app:version" + self._prefix

    def version(self) -> bytes:
        return internal_kv._internal_kv_get(self._version_key) or b""

    def changes(self) -> list[ModelChange]:
        values = [internal_kv._internal_kv_get(key) for key in internal_kv._internal_kv_list(self._prefix)]
        return sorted((pickle.loads(value) for value in values if value), key=lambda change: change.at)

    def record(self, change: ModelChange) -> None:
        internal_kv._internal_kv_put(self._prefix + change.model.encode(), pickle.dumps(change), overwrite=True)
        internal_kv._internal_kv_put(self._version_key, change.id.encode(), overwrite=True)


class ModelControl:
    """Applies changes to this replica's engine: requested ones, and those it missed."""

    def __init__(self, engine: Engine, mode: str, store: ChangeStore, takes_files: bool = False) -> None:
        self._engine = engine
        self._takes_files = takes_files
        self._mode = mode
        self._store = store
        self._applied: dict[str, str] = {}
        self._seen = b""
        self._again_at = 0.0
        self._lock = asyncio.Lock()

    async def apply(self, change: ModelChange) -> None:
        """Apply it here; a change that worked on one replica is recorded for all."""
        if self._mode in REFUSALS:
            raise ForbiddenError(REFUSALS[self._mode])
        if not self._takes_files and any(name.startswith(FILE_PREFIX) for name in change.parameters):
            raise ForbiddenError(
                f"failed to load '{change.model}', files may not come with a load: set load_files of its deployment to "
                "true in the configuration to allow it"
            )
        async with self._lock:
            await asyncio.to_thread(self._perform, change)
            self._applied[change.model] = change.id
            await asyncio.to_thread(self._store.record, change)

    async def catch_up(self) -> None:
        """Apply the changes made on other replicas. One that fails is logged, and tried again later."""
        if self._mode != "explicit":
            return
        async with self._lock:
            version = await asyncio.to_thread(self._store.version)
            if version == self._seen and time.monotonic() < self._again_at:
                return
            self._seen, self._again_at = version, math.inf
            for change in await asyncio.to_thread(self._store.changes):
                if self._applied.get(change.model) == change.id:
                    continue
                try:
                    await asyncio.to_thread(self._perform, change)
                    self._applied[change.model] = change.id
                except ServeAppError as problem:
                    self._again_at = time.monotonic() + RETRY_INTERVAL_S
                    logger.warning(
                        f"{change.action} of model {change.model!r}, made on another replica, failed: {problem.message}"
                    )

    def _perform(self, change: ModelChange) -> None:
        if change.action == "unload":
            self._engine.unload(change.model, change.dependents)
            return
        known = {row["name"] for row in self._engine.index()}
        if change.model not in known and not change.parameters:
            raise NotFoundError(f"failed to load '{change.model}', failed to poll from model repository")
        try:
            self._engine.load(change.model, change.parameters or None)
        except ModelLoadError as problem:
            raise ModelLoadError(f"failed to load '{change.model}', {_reason(problem, change.model)}") from None


def _reason(problem: Any, model: str) -> str:
    said = str(problem.message).removeprefix(f"model {model!r} can't be loaded: ")
    return said.removeprefix(f"failed to load '{model}', ")

"""How busy a language model's engine is, as its scheduler says after every step."""

from typing import Any

from serve_app.telemetry.pressure import KV_CACHE_USE, PENDING, RUNNING


class Load:
    """Takes vLLM's statistics beside its own loggers, and has the form of one."""

    def __init__(self) -> None:
        self._by_engine: dict[int, Any] = {}  # more than one with data parallelism

    def record(self, scheduler_stats: Any, _iteration_stats: Any, engine_idx: int = 0, **_more: Any) -> None:
        if scheduler_stats is not None:
            self._by_engine[engine_idx] = scheduler_stats

    def log(self) -> None:
        """Nothing: whoever asks gets `pressure`."""

    def log_engine_initialized(self) -> None:
        """Nothing to say yet."""

    def record_sleep_state(self, _sleep: int = 0, _level: int = 0) -> None:
        """An engine that sleeps has no requests."""

    def pressure(self) -> dict[str, float]:
        stats = self._by_engine.values()
        waiting = sum(one.num_waiting_reqs + one.num_skipped_waiting_reqs for one in stats)
        return {
            PENDING: float(waiting),
            RUNNING: float(sum(one.num_running_reqs for one in stats)),
            KV_CACHE_USE: max((float(one.kv_cache_usage) for one in stats), default=0.0),
        }

"""ray.serve.llm's vLLM engine, extended with generation from a plain prompt, statistics and autoscaling figures."""

import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Any

from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from ray.serve.llm import LLMConfig
from vllm import RequestOutput, SamplingParams
from vllm.v1.metrics.loggers import StatLoggerBase

from serve_app.llm.pacing import INTERVAL, pace_streams
from serve_app.telemetry import tracing
from serve_app.telemetry.pressure import KV_CACHE_USE, PENDING, RUNNING

STAGES = (
    "success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss",
)  # fmt: skip


@dataclass(slots=True)
class Duration:
    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        self.count += 1
        self.ns += ns


@dataclass(slots=True)
class GenerationStatistics:
    """Counts and times of all generations, in the form of Triton's model statistics."""

    stages: dict[str, Duration] = field(default_factory=lambda: {stage: Duration() for stage in STAGES})
    last_inference_ms: int = 0
    running: int = 0

    @contextmanager
    def track(self) -> Iterator[Callable[[Any], None]]:
        """Count one generation; the yielded function takes vLLM's times of it once it has finished.

        A generation that raises, or whose caller leaves before it has finished, counts as failed.
        """
        started = time.perf_counter_ns()
        self.last_inference_ms = time.time_ns() // 1_000_000
        self.running += 1
        times: list[Any] = []
        outcome = "fail"
        try:
            yield times.append
            outcome = "success"
        finally:
            if times:  # a caller may leave after the last token without reading to the end
                outcome = "success"
            self.running -= 1
            self.stages[outcome].add(time.perf_counter_ns() - started)
            if times:
                self._add_times(times[-1])

    def _add_times(self, times: Any) -> None:
        """vLLM gives seconds; the time to the first token is the prefill, which Triton calls compute_input."""
        steps = (times.queued_ts, times.scheduled_ts, times.first_token_ts, times.last_token_ts)
        for stage, begin, end in zip(("queue", "compute_input", "compute_infer"), steps, steps[1:], strict=False):
            self.stages[stage].add(max(0, int((end - begin) * 1e9)))
        self.stages["compute_output"].add(0)

    def row(self, model: str) -> dict[str, Any]:
        """One row of Triton's answer to a statistics request."""
        done = self.stages["success"].count
        return {
            "name": model,
            "version": "1",
            "last_inference": self.last_inference_ms,
            "inference_count": done,
            "execution_count": done,
            "inference_stats": {
                stage: {"count": duration.count, "ns": duration.ns} for stage, duration in self.stages.items()
            },
            "response_stats": {},
            "batch_stats": [],
            "memory_usage": [],
        }


class SchedulerLoad(StatLoggerBase):  # type: ignore[misc]
    """The latest scheduler statistics, which vLLM passes to its stat loggers after every step."""

    def __init__(self) -> None:
        self._by_engine: dict[int, Any] = {}  # more than one with data parallelism

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        if scheduler_stats is not None:
            self._by_engine[engine_idx] = scheduler_stats

    def log_engine_initialized(self) -> None:
        pass

    def report(self) -> dict[str, float]:
        """Floats only: Ray turns autoscaling reports of any other type off."""
        stats = self._by_engine.values()
        waiting = sum(one.num_waiting_reqs + one.num_skipped_waiting_reqs for one in stats)
        return {
            PENDING: float(waiting),
            RUNNING: float(sum(one.num_running_reqs for one in stats)),
            KV_CACHE_USE: max((float(one.kv_cache_usage) for one in stats), default=0.0),
        }


class Engine(VLLMEngine):  # type: ignore[misc]
    """The only class that depends on the internals of ray.serve.llm's engine."""

    def __init__(self, config: LLMConfig) -> None:
        super().__init__(config)
        self.statistics = GenerationStatistics()
        self.load = SchedulerLoad()
        self._processes: list[Any] = []  # of vLLM's engine, where they are processes of this replica
        pace_streams(config.experimental_configs.get(INTERVAL, 0.0), lambda: self.statistics.running)

    def _start_async_llm_engine(self, arguments: Any, config: Any, placement_group: Any) -> Any:
        client = super()._start_async_llm_engine(arguments, config, placement_group)
        if client.logger_manager:
            client.logger_manager.stat_loggers.append(self.load)
        client.generate = self._count(client.generate)  # OpenAI requests call the client directly
        resources = getattr(getattr(client, "engine_core", None), "resources", None)
        self._processes = list(getattr(getattr(resources, "engine_manager", None), "processes", ()))
        return client

    def _count(self, generate: Callable[..., AsyncGenerator[RequestOutput]]) -> Callable[..., Any]:
        async def counted(*arguments: Any, **named: Any) -> AsyncIterator[RequestOutput]:
            with self.statistics.track() as set_times:
                # Closed when the caller leaves: the sequence would go on until the generator is collected.
                async with aclosing(generate(*arguments, **named)) as outputs:
                    async for output in outputs:
                        if output.finished and output.metrics:
                            set_times(output.metrics)
                        yield output

        return counted

    def generate(
        self, prompt: str, parameters: SamplingParams, request_id: str, adapter: str | None = None
    ) -> AsyncGenerator[RequestOutput]:
        """Yield vLLM's outputs; closing the generator aborts the sequence."""
        adapters = self._oai_models.lora_requests
        lora = adapters[adapter] if adapter else None
        outputs: AsyncGenerator[RequestOutput] = self._engine_client.generate(
            prompt, parameters, request_id, lora_request=lora, trace_headers=tracing.headers()
        )
        return outputs

    @property
    def adapters(self) -> list[str]:
        return list(self._oai_models.lora_requests)

    @property
    def generates(self) -> bool:
        """False for an embedding model."""
        return self._oai_serving_completion is not None

    @property
    def max_length(self) -> int:
        return int(self._engine_client.model_config.max_model_len)

    @property
    def dead(self) -> bool:
        return bool(self._engine_client.errored)

    def was_killed(self) -> bool:
        """Whether it is dead because a process was killed from outside, and not because of a request."""
        codes = {process.exitcode for process in self._processes}
        return -signal.SIGKILL in codes and codes <= {None, 0, -signal.SIGKILL, -signal.SIGTERM}

    async def shutdown(self) -> None:
        await super().shutdown()
        if self._engine_client is not None:
            self._engine_client.shutdown()

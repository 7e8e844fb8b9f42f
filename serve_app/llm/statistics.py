"""What a language model has done so far, as Triton's statistics tell it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

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

    def row(self) -> dict[str, int]:
        return {"count": self.count, "ns": self.ns}


@dataclass(slots=True)
class Statistics:
    """Generations of every caller; one that failed or whose caller went away counts as failed."""

    stages: dict[str, Duration] = field(default_factory=lambda: {stage: Duration() for stage in STAGES})
    last_inference_ms: int = 0
    running: int = 0

    @contextmanager
    def watching(self) -> Iterator[Callable[[Any], None]]:
        """Gives a function that takes vLLM's times of the request, when they are there."""
        began = time.perf_counter_ns()
        self.last_inference_ms = time.time_ns() // 1_000_000
        self.running += 1
        seen: list[Any] = []
        outcome = "fail"
        try:
            yield seen.append
            outcome = "success"
        finally:
            if seen:  # who has the last token needn't wait for the end
                outcome = "success"
            self.running -= 1
            self.stages[outcome].add(time.perf_counter_ns() - began)
            if seen:
                self._add_times(seen[-1])

    def _add_times(self, times: Any) -> None:
        """Prompts are read in the time to the first token; vLLM's own clock counts in seconds."""
        steps = (times.queued_ts, times.scheduled_ts, times.first_token_ts, times.last_token_ts)
        for stage, begin, end in zip(("queue", "compute_input", "compute_infer"), steps, steps[1:], strict=False):
            self.stages[stage].add(max(0, int((end - begin) * 1e9)))
        self.stages["compute_output"].add(0)

    def row(self, model: str) -> dict[str, Any]:
        """Triton's row of one version."""
        done = self.stages["success"].count
        return {
            "name": model,
            "version": "1",
            "last_inference": self.last_inference_ms,
            "inference_count": done,
            "execution_count": done,
            "inference_stats": {stage: duration.row() for stage, duration in self.stages.items()},
            "response_stats": {},
            "batch_stats": [],
            "memory_usage": [],
        }

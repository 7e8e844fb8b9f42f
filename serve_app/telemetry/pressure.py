"""What replicas report of their queues, and how hard it presses: 1 is the target, infinity a stall."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# What a replica's `record_autoscaling_stats` answers: plain ints and floats, or Ray turns it off.
QUEUE_MS = "queue_ms"  # how long a completed request had waited
SERVED_PER_S = "served_per_s"
REJECTED_PER_S = "rejected_per_s"  # queue full, or waited too long
PENDING = "pending"  # requests that wait and aren't worked on yet
STALLED = "stalled"  # those of them that wait for a model which completes nothing
RUNNING = "running"  # sequences that a language model is at
KV_CACHE_USE = "kv_cache_use"  # 0..1

REJECTING = 1.25  # the least pressure of a rejected request, however few there are


def queue_pressure(
    target_ms: float, queue_ms: float, served_per_s: float, rejected_per_s: float, pending: float, stalled: float
) -> float:
    """Waiting time against the target: of those who are through, and as it will be of those who wait."""
    if stalled or (not served_per_s and (pending or rejected_per_s)):
        return math.inf
    wait_ms = max(queue_ms, 1000 * pending / served_per_s) if served_per_s else queue_ms
    rejecting = max(REJECTING, 1 + rejected_per_s / served_per_s) if rejected_per_s else 0.0
    return max(wait_ms / target_ms, rejecting)


def language_pressure(
    target_waiting: float, target_kv_cache: float, waiting: float, running: float, kv_cache_use: float, rejected: float
) -> float:
    """Requests that wait at a replica, and its memory for those it is at, each against its target."""
    if not running and (waiting or rejected):
        return math.inf
    return max(waiting / target_waiting, kv_cache_use / target_kv_cache, REJECTING if rejected else 0.0)


class QueueWindow:
    """The change of Triton's statistics between two readings; the caller leaves out ensembles: nothing waits there."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._read_at = clock()
        self._rejected = 0
        self._before: dict[tuple[str, str], tuple[int, int, int]] | None = None

    def report(self, rows: Iterable[Mapping[str, Any]], pending: Mapping[str, int], rejected: int) -> dict[str, float]:
        """`pending` is now and by model, `rejected` since the start; the first reading is what later ones begin at."""
        now = self._clock()
        counts = {(row["name"], row["version"]): _counts(row) for row in rows}
        before = counts if self._before is None else self._before
        changes = {key: _change(before.get(key), count) for key, count in counts.items()}
        refused = 0 if self._before is None else max(0, rejected - self._rejected)
        elapsed_s = max(now - self._read_at, 1e-3)
        self._before, self._rejected, self._read_at = counts, rejected, now
        served = sum(success for _, success, _ in changes.values())
        queue_ns = sum(queue for queue, _, _ in changes.values())
        moving = {name for (name, _), (_, success, fail) in changes.items() if success or fail}
        return {
            QUEUE_MS: queue_ns / served / 1e6 if served else 0.0,
            SERVED_PER_S: served / elapsed_s,
            REJECTED_PER_S: refused / elapsed_s,
            PENDING: float(sum(pending.values())),
            STALLED: float(sum(count for name, count in pending.items() if name not in moving)),
        }


def _counts(row: Mapping[str, Any]) -> tuple[int, int, int]:
    stats = row["inference_stats"]
    return stats["queue"]["ns"], stats["success"]["count"], stats["fail"]["count"]


def _change(before: tuple[int, int, int] | None, now: tuple[int, int, int]) -> tuple[int, int, int]:
    """A model that was loaded again counts from nothing."""
    if before is None or any(count < earlier for earlier, count in zip(before, now, strict=True)):
        return now
    return now[0] - before[0], now[1] - before[1], now[2] - before[2]

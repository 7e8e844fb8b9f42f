"""What replicas report to autoscaling, and the pressure computed from it: 1 is the target, infinity a stall."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

# Keys of a replica's `record_autoscaling_stats`. Values must be ints or floats, or Ray turns the reports off.
QUEUE_MS = "queue_ms"  # mean time that completed requests waited
SERVED_PER_S = "served_per_s"
REJECTED_PER_S = "rejected_per_s"  # the queue was full, or the request waited too long
PENDING = "pending"  # requests that wait
STALLED = "stalled"  # pending requests of models that complete nothing
RUNNING = "running"  # sequences that a language model generates
KV_CACHE_USE = "kv_cache_use"  # 0..1

REJECTION_PRESSURE = 1.25  # the least pressure when any request was rejected
LARGEST = 1e15  # a reported value above it is taken as an error
SUSTAINED = 3  # readings that must agree, because a single one may fall between two batches


def queue_pressure(
    target_ms: float, queue_ms: float, served_per_s: float, rejected_per_s: float, pending: float, stalled: float
) -> float:
    """The wait of completed requests, or the wait expected for pending ones if longer, against the target."""
    if stalled or (not served_per_s and (pending or rejected_per_s)):
        return math.inf
    wait_ms = max(queue_ms, 1000 * pending / served_per_s) if served_per_s else queue_ms
    rejecting = max(REJECTION_PRESSURE, 1 + rejected_per_s / served_per_s) if rejected_per_s else 0.0
    return max(wait_ms / target_ms, rejecting)


def language_pressure(
    target_waiting: float, target_kv_cache: float, waiting: float, running: float, kv_cache_use: float, rejected: float
) -> float:
    """Waiting requests and the use of the KV cache, each against its target."""
    if not running and (waiting or rejected):
        return math.inf
    return max(waiting / target_waiting, kv_cache_use / target_kv_cache, REJECTION_PRESSURE if rejected else 0.0)


class QueueWindow:
    """The change of Triton's statistics between two readings.

    Leave ensembles out: requests wait in the queues of their steps.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._read_at = clock()
        self._rejected = 0
        self._before: dict[tuple[str, str], tuple[int, int, int]] | None = None

    def report(self, rows: Iterable[Mapping[str, Any]], pending: Mapping[str, int], rejected: int) -> dict[str, float]:
        """`pending` is by model, `rejected` counts from the start; the first reading reports no change."""
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
    """The counts themselves if they restarted, as when a model is loaded again."""
    if before is None or any(count < earlier for earlier, count in zip(before, now, strict=True)):
        return now
    return now[0] - before[0], now[1] - before[1], now[2] - before[2]


class Reports:
    """The reports of a deployment's replicas since a time; every value is the average of one replica."""

    def __init__(self, raw: Mapping[str, Mapping[Any, Sequence[Any]]], start: float) -> None:
        found: dict[Any, dict[str, list[float]]] = defaultdict(dict)
        for name, replicas in raw.items():
            for replica, series in replicas.items():
                # NaN and the like stop here: a policy that raises ends the controller's loop for every application.
                points = [point.value for point in series if point.timestamp >= start and 0 <= point.value < LARGEST]
                if points:
                    found[replica][name] = points
        self._replicas = list(found.values())

    def __len__(self) -> int:
        return len(self._replicas)

    def mean(self, name: str) -> float:
        return fmean([fmean(replica[name]) for replica in self._replicas if name in replica] or [0.0])

    def sustained(self, name: str) -> float:
        """The least value over the whole time."""
        enough = [replica.get(name, ()) for replica in self._replicas if len(replica.get(name, ())) >= SUSTAINED]
        return sum(map(min, enough)) / max(1, len(self))

    def per_request(self, name: str) -> float:
        """The mean over all requests of all replicas, for a value that is a mean over completed requests."""
        columns = [(replica.get(name, []), replica.get(SERVED_PER_S, [])) for replica in self._replicas]
        pairs = [pair for both in columns for pair in zip(*both, strict=False)]
        served = sum(count for _, count in pairs)
        return sum(value * count for value, count in pairs) / served if served else 0.0

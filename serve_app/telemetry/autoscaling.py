"""How many replicas a deployment should have, from what its replicas report of their queues."""

import math
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from serve_app.errors import ConfigurationError

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

# What a replica's `record_autoscaling_stats` answers: plain ints and floats, or Ray turns it off.
QUEUE_MS = "queue_ms"  # how long a completed request had waited
SERVED_PER_S = "served_per_s"
REJECTED_PER_S = "rejected_per_s"  # queue full, or waited too long
PENDING = "pending"  # requests that wait and aren't worked on yet
STALLED = "stalled"  # those of them that wait for a model which completes nothing
RUNNING = "running"  # sequences that a language model is at
KV_CACHE_USE = "kv_cache_use"  # 0..1

REJECTING = 1.25  # the least pressure of a rejected request, however few there are
ABSURD = 1e15
SUSTAINED = 3  # readings that must agree that somebody waits: one alone may have come between two batches


@dataclass(frozen=True, slots=True)
class Hysteresis:
    """How far from its target a deployment may be before anything changes, and how fast it then does."""

    over: float = 1.1  # pressure that asks for more
    under: float = 0.5  # pressure that allows fewer
    growth: float = 2.0  # at most so many times the replicas that run
    headroom: float = 0.8  # of the load that was too much: what a replica is given when there are to be fewer
    memory_s: float = 1800.0  # how long a load that was too much is remembered

    def __post_init__(self) -> None:
        if not (0 < self.under < 1 <= self.over < self.growth < math.inf and 0 < self.headroom <= 1):
            raise ConfigurationError(f"autoscaling: 0 < under < 1 ≤ over < growth and 0 < headroom ≤ 1, not {self}")


@dataclass(frozen=True, slots=True)
class Fleet:
    """Replicas that run, that are asked for (some may still start), and the bounds."""

    running: int
    asked: int
    least: int
    most: int

    def bounded(self, wanted: float) -> int:
        return max(self.least, math.ceil(min(self.most, wanted)))


@dataclass(frozen=True, slots=True)
class Signals:
    """Pressure 1 is the target, infinity a stall; load is the work of one replica, in any unit."""

    pressure: float
    load: float
    idle: bool = False


@dataclass(frozen=True, slots=True)
class Strain:
    """The load that was too much for a replica, and when."""

    load: float
    at: float


def wanted_replicas(
    fleet: Fleet, signals: Signals, strain: Strain | None, now: float, hysteresis: Hysteresis
) -> tuple[int, Strain | None]:
    """More under pressure; fewer when idle or where fewer can do the work; else what there is."""
    if fleet.running == 0:
        return fleet.bounded(max(fleet.asked, 1 if signals.pressure else 0)), strain
    if signals.pressure > hysteresis.over:
        if signals.load and math.isfinite(signals.pressure):
            strain = Strain(signals.load, now)
        return fleet.bounded(_more(fleet, signals, hysteresis)), strain
    if strain and now - strain.at > hysteresis.memory_s:
        strain = None
    if signals.idle:
        return fleet.least, strain
    if signals.pressure < hysteresis.under:
        if strain and signals.load > strain.load:  # requests got lighter
            strain = replace(strain, load=signals.load)
        return fleet.bounded(_fewer(fleet, signals, strain, hysteresis)), strain
    return fleet.bounded(fleet.asked), strain


def _more(fleet: Fleet, signals: Signals, hysteresis: Hysteresis) -> float:
    if fleet.running < fleet.asked:  # those that start will take their share
        return fleet.asked
    return max(fleet.running + 1, fleet.running * min(signals.pressure, hysteresis.growth))


def _fewer(fleet: Fleet, signals: Signals, strain: Strain | None, hysteresis: Hysteresis) -> float:
    """A short queue doesn't tell how much room there is: the load that was too much does, or else one at a time."""
    room = fleet.asked - 1.0
    if strain:
        room = fleet.running * signals.load / (hysteresis.headroom * strain.load)
    return min(fleet.asked, max(1.0, room, fleet.running * signals.pressure))


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


class Reports:
    """What the replicas of a deployment reported from a time on; every number is that of one replica on average."""

    def __init__(self, raw: Mapping[str, Mapping[Any, Sequence[Any]]], start: float) -> None:
        found: dict[Any, dict[str, list[float]]] = defaultdict(dict)
        for name, replicas in raw.items():
            for replica, series in replicas.items():
                # a policy that raises stops the controller's loop for every application: no NaN gets further
                points = [point.value for point in series if point.timestamp >= start and 0 <= point.value < ABSURD]
                if points:
                    found[replica][name] = points
        self._replicas = list(found.values())

    def __len__(self) -> int:
        return len(self._replicas)

    def mean(self, name: str) -> float:
        return fmean([fmean(replica[name]) for replica in self._replicas if name in replica] or [0.0])

    def sustained(self, name: str) -> float:
        """What it never fell below."""
        enough = [replica.get(name, ()) for replica in self._replicas if len(replica.get(name, ())) >= SUSTAINED]
        return sum(map(min, enough)) / max(1, len(self))

    def per_request(self, name: str) -> float:
        """Of something that is told per completed request: over all requests of all replicas."""
        columns = [(replica.get(name, []), replica.get(SERVED_PER_S, [])) for replica in self._replicas]
        pairs = [pair for both in columns for pair in zip(*both, strict=False)]
        served = sum(count for _, count in pairs)
        return sum(value * count for value, count in pairs) / served if served else 0.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What one decision leaves to the next; Ray keeps it for the deployment."""

    running: int
    since: float  # when that many began to run
    strain: Strain | None = None


class _Policy(ABC):
    """Ray asks ten times a second, and applies scaling factors, delays and bounds to the answer.

    Reports count from when the number of replicas last changed: by older ones a burst would be answered over and over.
    """

    def __init__(self, hysteresis: Mapping[str, float]) -> None:
        try:
            self._hysteresis = Hysteresis(**hysteresis)
        except TypeError as problem:
            raise ConfigurationError(f"autoscaling: {problem}") from None

    def __call__(self, ctx: "AutoscalingContext") -> tuple[int, dict[str, Any]]:
        fleet = Fleet(
            ctx.current_num_replicas,
            ctx.target_num_replicas,
            ctx.capacity_adjusted_min_replicas,
            ctx.capacity_adjusted_max_replicas,
        )
        memory: Memory | None = ctx.policy_state.get("memory")
        if memory is None or memory.running != fleet.running:
            memory = Memory(fleet.running, ctx.current_time, memory.strain if memory else None)
        since, look_back_s = memory.since, ctx.config.look_back_period_s
        # a fifth of it is Ray's pace of readings: the first one tells of before and after
        reports = Reports(ctx.raw_metrics or {}, since + look_back_s / 5)
        # in the routers; an average of samples, so less than one is noise
        waiting = int(ctx.total_queued_requests or 0) / max(1, fleet.running)
        settling = len(reports) < fleet.running and ctx.current_time - since < look_back_s
        blind = fleet.running and not reports and not waiting and ctx.total_num_requests
        if settling or blind:
            return fleet.bounded(fleet.asked), {"memory": memory}
        signals = self.signals(reports, waiting)
        signals = replace(signals, idle=not (signals.pressure or signals.load or ctx.total_num_requests))
        wanted, strain = wanted_replicas(fleet, signals, memory.strain, ctx.current_time, self._hysteresis)
        return wanted, {"memory": replace(memory, strain=strain)}

    @abstractmethod
    def signals(self, reports: Reports, waiting: float) -> Signals:
        """What the reports mean to this kind of deployment."""


class QueueTimePolicy(_Policy):
    """Keeps the queue time of Triton's requests at a target; its load is requests a second."""

    def __init__(self, *, target_queue_ms: float = 10.0, **hysteresis: float) -> None:
        super().__init__(hysteresis)
        self._target_ms = _positive("target_queue_ms", target_queue_ms)

    def signals(self, reports: Reports, waiting: float) -> Signals:
        served = reports.mean(SERVED_PER_S)
        pressure = queue_pressure(
            self._target_ms,
            reports.per_request(QUEUE_MS),
            served,
            reports.mean(REJECTED_PER_S),
            reports.sustained(PENDING) + waiting,
            reports.sustained(STALLED),
        )
        return Signals(pressure, served)


class LanguageModelPolicy(_Policy):
    """Keeps waiting requests and the use of the KV cache at their targets; its load is sequences at work."""

    def __init__(self, *, target_waiting: float = 2.0, target_kv_cache: float = 0.8, **hysteresis: float) -> None:
        super().__init__(hysteresis)
        self._target_waiting = _positive("target_waiting", target_waiting)
        self._target_kv_cache = _positive("target_kv_cache", target_kv_cache)

    def signals(self, reports: Reports, waiting: float) -> Signals:
        running = reports.mean(RUNNING)
        pressure = language_pressure(
            self._target_waiting,
            self._target_kv_cache,
            reports.mean(PENDING) + waiting,
            running,
            reports.mean(KV_CACHE_USE),
            reports.mean(REJECTED_PER_S),
        )
        return Signals(pressure, running)


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ConfigurationError(f"autoscaling: {name} must be over 0, not {value}")
    return value

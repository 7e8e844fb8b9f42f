"""How many replicas a deployment should have, from what its replicas report of their queues."""

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ray._common.utils import import_attr

from serve_app.errors import ConfigurationError
from serve_app.telemetry.pressure import (
    KV_CACHE_USE,
    PENDING,
    QUEUE_MS,
    REJECTED_PER_S,
    RUNNING,
    SERVED_PER_S,
    STALLED,
    language_pressure,
    queue_pressure,
)  # fmt: skip
from serve_app.telemetry.signals import SignalGauges

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

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
    measured: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # each with its target


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
        self._gauges = SignalGauges()
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
        self._gauges.show(ctx.app_name or "", ctx.deployment_name, fleet.most, signals.pressure, signals.measured)
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
        served, queue_ms = reports.mean(SERVED_PER_S), reports.per_request(QUEUE_MS)
        pressure = queue_pressure(
            self._target_ms,
            queue_ms,
            served,
            reports.mean(REJECTED_PER_S),
            reports.sustained(PENDING) + waiting,
            reports.sustained(STALLED),
        )
        return Signals(pressure, served, measured={QUEUE_MS: (queue_ms, self._target_ms)})


class LanguageModelPolicy(_Policy):
    """Keeps waiting requests and the use of the KV cache at their targets; its load is sequences at work."""

    def __init__(self, *, target_waiting: float = 2.0, target_kv_cache: float = 0.8, **hysteresis: float) -> None:
        super().__init__(hysteresis)
        self._target_waiting = _positive("target_waiting", target_waiting)
        self._target_kv_cache = _positive("target_kv_cache", target_kv_cache)

    def signals(self, reports: Reports, waiting: float) -> Signals:
        running, kv_cache_use = reports.mean(RUNNING), reports.mean(KV_CACHE_USE)
        waiting += reports.mean(PENDING)
        pressure = language_pressure(
            self._target_waiting,
            self._target_kv_cache,
            waiting,
            running,
            kv_cache_use,
            reports.mean(REJECTED_PER_S),
        )
        measured = {PENDING: (waiting, self._target_waiting), KV_CACHE_USE: (kv_cache_use, self._target_kv_cache)}
        return Signals(pressure, running, measured=measured)


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ConfigurationError(f"autoscaling: {name} must be over 0, not {value}")
    return value


def require_policy(policy: Mapping[str, Any]) -> None:
    """Makes it once: one that can't be made would end the controller's loop for every application."""
    path, arguments = policy.get("policy_function", ""), policy.get("policy_kwargs") or {}
    try:
        function = import_attr(path)
    except Exception as problem:  # whatever importing raises
        raise ConfigurationError(f"autoscaling: policy_function {path!r} can't be imported: {problem}") from None
    if isinstance(function, type):
        try:
            function(**arguments)
        except TypeError as problem:
            raise ConfigurationError(f"autoscaling: {path}: {problem}") from None
    elif arguments:
        raise ConfigurationError(f"autoscaling: {path} is no class, and Ray gives policy_kwargs to classes only")

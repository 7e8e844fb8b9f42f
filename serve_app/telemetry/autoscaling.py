"""Autoscaling policies for Ray Serve: how many replicas a deployment needs, from the reports of its replicas."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ray._common.utils import import_attr
from ray.util.metrics import Gauge

from serve_app.errors import ConfigurationError
from serve_app.telemetry.pressure import (
    KV_CACHE_USE,
    PENDING,
    QUEUE_MS,
    REJECTED_PER_S,
    RUNNING,
    SERVED_PER_S,
    STALLED,
    Reports,
    language_pressure,
    queue_pressure,
)  # fmt: skip

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

STALL_PRESSURE = 1000.0  # exported in place of infinity


@dataclass(frozen=True, slots=True)
class Hysteresis:
    """How far a deployment may be from its target before it is scaled, and how fast it is scaled then."""

    over: float = 1.1  # scale up above this pressure
    under: float = 0.5  # scale down below this pressure
    growth: float = 2.0  # at most this many times the running replicas in one step
    headroom: float = 0.8  # load of a replica after scaling down, as a share of the overload
    memory_s: float = 1800.0  # how long an overload is remembered

    def __post_init__(self) -> None:
        if not (0 < self.under < 1 <= self.over < self.growth < math.inf and 0 < self.headroom <= 1):
            raise ConfigurationError(
                f"autoscaling: 0 < under < 1 <= over < growth and 0 < headroom <= 1 must hold, got {self}"
            )


@dataclass(frozen=True, slots=True)
class Fleet:
    """Running replicas, requested replicas (some may still be starting), and the bounds."""

    running: int
    requested: int
    least: int
    most: int

    def clamp(self, wanted: float) -> int:
        return max(self.least, math.ceil(min(self.most, wanted)))


@dataclass(frozen=True, slots=True)
class Signals:
    """Pressure 1 is the target, infinity a stall; `load` is the work of one replica, in any unit."""

    pressure: float
    load: float
    idle: bool = False
    measured: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # (value, target) by name


@dataclass(frozen=True, slots=True)
class Overload:
    """The load under which a replica was last over its target, and when."""

    load: float
    at: float


def wanted_replicas(
    fleet: Fleet, signals: Signals, overload: Overload | None, now: float, hysteresis: Hysteresis
) -> tuple[int, Overload | None]:
    """The number of replicas for these signals, and the overload to remember."""
    if fleet.running == 0:
        return fleet.clamp(max(fleet.requested, 1 if signals.pressure else 0)), overload
    if signals.pressure > hysteresis.over:
        if signals.load and math.isfinite(signals.pressure):
            overload = Overload(signals.load, now)
        return fleet.clamp(_more(fleet, signals, hysteresis)), overload
    if overload and now - overload.at > hysteresis.memory_s:
        overload = None
    if signals.idle:
        return fleet.least, overload
    if signals.pressure < hysteresis.under:
        if overload and signals.load > overload.load:  # requests have become cheaper
            overload = replace(overload, load=signals.load)
        return fleet.clamp(_fewer(fleet, signals, overload, hysteresis)), overload
    return fleet.clamp(fleet.requested), overload


def _more(fleet: Fleet, signals: Signals, hysteresis: Hysteresis) -> float:
    if fleet.running < fleet.requested:  # wait for replicas that are starting
        return fleet.requested
    return max(fleet.running + 1, fleet.running * min(signals.pressure, hysteresis.growth))


def _fewer(fleet: Fleet, signals: Signals, overload: Overload | None, hysteresis: Hysteresis) -> float:
    """A short queue doesn't show the spare capacity: scale to the remembered overload, or else one at a time."""
    room = fleet.requested - 1.0
    if overload:
        room = fleet.running * signals.load / (hysteresis.headroom * overload.load)
    return min(fleet.requested, max(1.0, room, fleet.running * signals.pressure))


class ScalingMetrics:
    """Gauges of a policy's measurements; policies run in Serve's controller."""

    def __init__(self) -> None:
        labels = ("application", "deployment")
        self._pressure = Gauge(
            "serve_app_autoscaling_pressure", "1 is the target; above it replicas are added.", labels
        )
        self._signal = Gauge("serve_app_autoscaling_signal", "Measured value, of one replica.", (*labels, "signal"))
        self._target = Gauge("serve_app_autoscaling_target", "Target of the measured value.", (*labels, "signal"))
        self._most = Gauge("serve_app_autoscaling_max_replicas", "Upper bound of replicas.", labels)

    def set(self, application: str, deployment: str, most: int, signals: Signals) -> None:
        labels = {"application": application, "deployment": deployment}
        self._most.set(most, labels)
        self._pressure.set(min(signals.pressure, STALL_PRESSURE), labels)
        for name, (value, target) in signals.measured.items():
            self._signal.set(value, {**labels, "signal": name})
            self._target.set(target, {**labels, "signal": name})


@dataclass(frozen=True, slots=True)
class Memory:
    """State between two decisions, kept by Ray for each deployment."""

    running: int
    since: float  # when that many started to run
    overload: Overload | None = None


class _Policy(ABC):
    """Called by Ray ten times a second; Ray applies scaling factors, delays and bounds to the result.

    Reports from before the last change of the number of replicas don't count: a burst would be answered repeatedly.
    """

    def __init__(self, hysteresis: Mapping[str, float]) -> None:
        self._metrics = ScalingMetrics()
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
            memory = Memory(fleet.running, ctx.current_time, memory.overload if memory else None)
        since, look_back_s = memory.since, ctx.config.look_back_period_s
        # Ray reads every fifth of the look-back period, so the first reading spans the change.
        reports = Reports(ctx.raw_metrics or {}, since + look_back_s / 5)
        # Queued in the routers: an average of samples, in which less than one is noise.
        waiting = int(ctx.total_queued_requests or 0) / max(1, fleet.running)
        settling = len(reports) < fleet.running and ctx.current_time - since < look_back_s
        blind = fleet.running and not reports and not waiting and ctx.total_num_requests
        if settling or blind:
            return fleet.clamp(fleet.requested), {"memory": memory}
        signals = self.signals(reports, waiting)
        self._metrics.set(ctx.app_name or "", ctx.deployment_name, fleet.most, signals)
        signals = replace(signals, idle=not (signals.pressure or signals.load or ctx.total_num_requests))
        wanted, overload = wanted_replicas(fleet, signals, memory.overload, ctx.current_time, self._hysteresis)
        return wanted, {"memory": replace(memory, overload=overload)}

    @abstractmethod
    def signals(self, reports: Reports, waiting: float) -> Signals:
        """Pressure and load of this kind of deployment."""


class QueueTimePolicy(_Policy):
    """Keeps the time that requests wait in Triton's queues at a target; load is requests per second."""

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
    """Keeps waiting requests and the use of the KV cache at their targets; load is running sequences."""

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
        raise ConfigurationError(f"autoscaling: {name} must be greater than 0, got {value}")
    return value


def require_policy(policy: Mapping[str, Any]) -> None:
    """Import and create the policy: one that fails in Serve's controller ends its loop for every application."""
    path, arguments = policy.get("policy_function", ""), policy.get("policy_kwargs") or {}
    try:
        function = import_attr(path)
    except Exception as problem:  # importing may raise anything
        raise ConfigurationError(f"autoscaling: policy_function {path!r} can't be imported: {problem}") from None
    if isinstance(function, type):
        try:
            function(**arguments)
        except TypeError as problem:
            raise ConfigurationError(f"autoscaling: {path}: {problem}") from None
    elif arguments:
        raise ConfigurationError(
            f"autoscaling: {path} must be a class, because Ray passes policy_kwargs to classes only"
        )

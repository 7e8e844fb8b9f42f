"""A deployment that is simulated second by second, scaled by Ray's own code around a policy."""

import math
from collections import Counter
from types import SimpleNamespace

import pytest
from ray.serve import autoscaling_policy
from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve._private.common import TimeStampedValue
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from serve_app.telemetry.pressure import QueueWindow

TICK_S = 0.5
START_S = 4.0  # until a new replica runs
PATIENCE_S = 1.0  # a request that waits longer is rejected
MODULE = "serve_app.telemetry.autoscaling"


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


class SimulatedReplica:
    """One queue before one server; `stats` has the shape of Triton's."""

    def __init__(self, clock, rate):
        self.clock, self.rate, self.started = clock, rate, clock()
        self.window = QueueWindow(clock)
        self.waiting, self.served, self.queue_ns, self.rejected = 0.0, 0.0, 0.0, 0.0
        self.points, self.pushed = {}, {}

    def work(self, arriving, stalled, noise_ms):
        self.waiting += arriving
        done = 0.0 if stalled else min(self.waiting, self.rate * TICK_S)
        behind = self.waiting - done
        self.queue_ns += done * (1e9 * behind / self.rate + 1e6 * noise_ms)
        self.served += done
        self.waiting = min(behind, PATIENCE_S * self.rate)
        self.rejected += behind - self.waiting

    def rows(self):
        stats = {"queue": {"ns": int(self.queue_ns)}, "success": {"count": int(self.served)}, "fail": {"count": 0}}
        return [{"name": "yolo", "version": "1", "inference_stats": stats}]

    def record(self):
        numbers = self.window.report(self.rows(), {"yolo": int(self.waiting)}, int(self.rejected))
        for name, value in numbers.items():
            self.points.setdefault(name, []).append(TimeStampedValue(self.clock(), value))

    def push(self, look_back_s):
        self.points = {
            name: [point for point in series if point.timestamp > self.clock() - look_back_s]
            for name, series in self.points.items()
        }
        self.pushed = {name: list(series) for name, series in self.points.items()}


class Simulation:
    """`run` gives the number of replicas that are asked for after each tick."""

    def __init__(self, clock, options, kwargs, rate):
        policy = {"policy_function": f"{MODULE}:QueueTimePolicy", "policy_kwargs": kwargs}
        self.config = AutoscalingConfig(policy=policy, **options)
        self.policy = autoscaling_policy._apply_autoscaling_config(_resolve_policy_callable(self.config.policy))
        self.clock, self.rate, self.state, self.counts = clock, rate, {}, Counter()
        self.asked = self.config.initial_replicas or self.config.min_replicas
        self.replicas = [SimulatedReplica(clock, rate) for _ in range(self.asked)]
        self.starting, self.homeless, self.ticks = [], 0.0, 0

    def run(self, seconds, arrivals, stalled=False, noise_ms=lambda t: 0.0):
        """`arrivals` a second, as a number or a function of the seconds gone by; returns what is asked for."""
        asked = []
        for tick in range(int(seconds / TICK_S)):
            gone = tick * TICK_S
            rate = arrivals(gone) if callable(arrivals) else arrivals
            self._work(rate * TICK_S, stalled, noise_ms(gone))
            self._report()
            self._decide(rate)
            asked.append(self.asked)
        return asked

    def _work(self, arriving, stalled, noise_ms):
        self.clock.now += TICK_S
        self.ticks += 1
        if not self.replicas:
            self.homeless += arriving
            return
        arriving, self.homeless = arriving + self.homeless, 0.0
        level = (arriving + sum(replica.waiting for replica in self.replicas)) / len(self.replicas)
        room = [max(0.0, level - replica.waiting) for replica in self.replicas]  # the least busy get most
        for replica, free in zip(self.replicas, room, strict=True):
            replica.work(arriving * free / sum(room) if arriving else 0.0, stalled, noise_ms)

    def _every(self, seconds):
        return self.ticks % max(1, math.ceil(seconds / TICK_S)) == 0

    def _report(self):
        look_back_s = self.config.look_back_period_s
        if self._every(min(look_back_s / 5, self.config.metrics_interval_s)):
            for replica in self.replicas:
                replica.record()
        if self._every(self.config.metrics_interval_s):
            for replica in self.replicas:
                replica.push(look_back_s)

    def _decide(self, rate):
        names = {name for replica in self.replicas for name in replica.pushed}
        raw = {name: {id(one): one.pushed[name] for one in self.replicas if name in one.pushed} for name in names}
        ongoing = self.homeless + sum(replica.waiting for replica in self.replicas) + rate / self.rate
        context = AutoscalingContext(
            None, "vision", "app", len(self.replicas), self.asked, [], ongoing, self.homeless, None, raw,
            self.config.min_replicas, self.config.max_replicas, dict(self.state), None, None, self.clock(), self.config,
        )  # fmt: skip
        wanted, self.state = self.policy(context)
        self._scale(max(self.config.min_replicas, min(self.config.max_replicas, wanted)))

    def _scale(self, wanted):
        self.counts["up"] += wanted > self.asked
        self.counts["down"] += wanted < self.asked
        self.asked = wanted
        while len(self.replicas) + len(self.starting) > wanted:
            (self.starting or self.replicas).pop()
        while len(self.replicas) + len(self.starting) < wanted:
            self.starting.append(self.clock() + START_S)
        ready = [at for at in self.starting if at <= self.clock()]
        self.starting = [at for at in self.starting if at > self.clock()]
        self.replicas += [SimulatedReplica(self.clock, self.rate) for _ in ready]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def simulate(clock, monkeypatch):
    """A replica serves `rate` requests a second."""
    monkeypatch.setattr(autoscaling_policy, "time", SimpleNamespace(time=clock))

    def simulation(rate=20.0, policy_kwargs=None, **options):
        defaults = {
            "min_replicas": 1, "max_replicas": 6, "look_back_period_s": 10.0, "metrics_interval_s": 2.0,
            "upscale_delay_s": 2.0, "downscale_delay_s": 30.0,
        }  # fmt: skip
        return Simulation(clock, defaults | options, policy_kwargs or {}, rate)

    return simulation

"""A policy under simulated load, scaled by Ray's own code with its delays and bounds."""

import itertools
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
START_S = 4.0  # of a new replica
QUEUE_LIMIT_S = 1.0  # a request that waits longer is rejected
POLICY = "serve_app.telemetry.autoscaling:QueueTimePolicy"


class Clock:
    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        return self.now


class SimulatedReplica:
    """One queue before one server, with statistics in Triton's form."""

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
        self.waiting = min(behind, QUEUE_LIMIT_S * self.rate)
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
    """`requested` is the number of replicas that Serve wants, `counts` how often it went up and down."""

    def __init__(self, clock, options, kwargs, rate):
        policy = {"policy_function": POLICY, "policy_kwargs": kwargs}
        self.config = AutoscalingConfig(policy=policy, **options)
        self.policy = autoscaling_policy._apply_autoscaling_config(_resolve_policy_callable(self.config.policy))
        self.clock, self.rate, self.state, self.counts = clock, rate, {}, Counter()
        self.requested = self.config.initial_replicas or self.config.min_replicas
        self.replicas = [SimulatedReplica(clock, rate) for _ in range(self.requested)]
        self.starting, self.unrouted, self.ticks = [], 0.0, 0

    def run(self, seconds, arrivals, stalled=False, noise_ms=lambda t: 0.0):
        """`arrivals` a second, as a number or a function of the time; returns `requested` after each tick."""
        requested = []
        for tick in range(int(seconds / TICK_S)):
            now = tick * TICK_S
            rate = arrivals(now) if callable(arrivals) else arrivals
            self._work(rate * TICK_S, stalled, noise_ms(now))
            self._report()
            self._decide(rate)
            requested.append(self.requested)
        return requested

    def _work(self, arriving, stalled, noise_ms):
        self.clock.now += TICK_S
        self.ticks += 1
        if not self.replicas:
            self.unrouted += arriving
            return
        arriving, self.unrouted = arriving + self.unrouted, 0.0
        level = (arriving + sum(replica.waiting for replica in self.replicas)) / len(self.replicas)
        room = [max(0.0, level - replica.waiting) for replica in self.replicas]
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
        ongoing = self.unrouted + sum(replica.waiting for replica in self.replicas) + rate / self.rate
        context = AutoscalingContext(
            None, "vision", "app", len(self.replicas), self.requested, [], ongoing, self.unrouted, None, raw,
            self.config.min_replicas, self.config.max_replicas, dict(self.state), None, None, self.clock(), self.config,
        )  # fmt: skip
        wanted, self.state = self.policy(context)
        self._scale(max(self.config.min_replicas, min(self.config.max_replicas, wanted)))

    def _scale(self, wanted):
        self.counts["up"] += wanted > self.requested
        self.counts["down"] += wanted < self.requested
        self.requested = wanted
        while len(self.replicas) + len(self.starting) > wanted:
            (self.starting or self.replicas).pop()
        while len(self.replicas) + len(self.starting) < wanted:
            self.starting.append(self.clock() + START_S)
        ready = [at for at in self.starting if at <= self.clock()]
        self.starting = [at for at in self.starting if at > self.clock()]
        self.replicas += [SimulatedReplica(self.clock, self.rate) for _ in ready]


@pytest.fixture
def simulate(monkeypatch):
    """A fleet whose replicas serve `rate` requests a second."""
    clock = Clock()
    monkeypatch.setattr(autoscaling_policy, "time", SimpleNamespace(time=clock))

    def simulation(rate=20.0, policy_kwargs=None, **options):
        defaults = {
            "min_replicas": 1, "max_replicas": 6, "look_back_period_s": 10.0, "metrics_interval_s": 2.0,
            "upscale_delay_s": 2.0, "downscale_delay_s": 30.0,
        }  # fmt: skip
        return Simulation(clock, defaults | options, policy_kwargs or {}, rate)

    return simulation


def test_a_burst_adds_replicas_within_one_look_back_and_up_to_the_maximum(simulate):
    fleet = simulate(max_replicas=4)
    assert set(fleet.run(40, 2)) == {1}
    assert fleet.run(fleet.config.look_back_period_s, 60)[-1] > 1
    assert max(fleet.run(120, 60)) == 4
    assert all(replica.waiting < 1 for replica in fleet.replicas)
    assert set(fleet.run(100, 1000)) == {4}


def test_the_backlog_of_an_old_replica_is_not_counted_again_when_new_ones_run(simulate):
    fleet = simulate(max_replicas=50)
    fleet.run(30, 2)
    assert max(fleet.run(200, 60)) <= 8, "work for three replicas, found by doubling and at most one step more"


def test_a_ramp_is_followed(simulate):
    fleet = simulate(max_replicas=10)
    requested = fleet.run(400, lambda t: 5 + t / 4)
    needed = [math.ceil((5 + max(0, tick / 2 - 20) / 4) / fleet.rate) for tick in range(len(requested))]
    assert all(one >= other for one, other in zip(requested, needed, strict=True)), "at most 20 s late"
    assert max(requested) <= 8


def test_a_stall_adds_replicas(simulate):
    fleet = simulate()
    fleet.run(20, 10)
    assert fleet.run(30, 0.2, stalled=True)[-1] > 1


def test_noise_around_the_target_and_spikes_shorter_than_the_delay_change_nothing(simulate):
    fast = {"look_back_period_s": 5.0, "metrics_interval_s": 1.0, "upscale_delay_s": 15.0}
    for noise_ms, options in (
        (lambda t: 8 + 2.5 * math.sin(t / 7), {}),
        (lambda t: 60 if t % 40 < 2 else 7, fast),
    ):
        fleet = simulate(initial_replicas=3, **options)
        fleet.run(300, 30, noise_ms=noise_ms)
        assert fleet.counts == {"up": 0, "down": 0}


@pytest.mark.parametrize("load", [25, 50, 90])
def test_a_constant_load_does_not_swing(simulate, load):
    fleet = simulate()
    fleet.run(200, load)
    before = fleet.counts.copy()
    requested = fleet.run(400, load)
    assert fleet.counts["up"] - before["up"] <= 1
    assert max(requested) - min(requested) <= 1
    assert fleet.requested * fleet.rate >= load


def test_replicas_that_have_become_faster_are_reduced_once_the_overload_is_forgotten(simulate):
    fleet = simulate(policy_kwargs={"memory_s": 200})
    fleet.run(200, 70)
    for replica in fleet.replicas:
        replica.rate *= 10
    fleet.rate *= 10
    fleet.run(600, 70)
    assert fleet.requested == 1


def test_without_load_the_fleet_shrinks_to_the_minimum_in_one_step_after_rays_delay(simulate):
    fleet = simulate(min_replicas=2, initial_replicas=4, downscale_delay_s=100.0)
    requested = fleet.run(200, 0)
    changes = [tick / 2 for tick, (one, other) in enumerate(itertools.pairwise(requested)) if other < one]
    assert (requested[-1], len(changes)) == (2, 1)
    assert changes[0] >= 100


def test_an_idle_deployment_scales_to_zero_and_wakes_at_a_request(simulate):
    fleet = simulate(min_replicas=0, initial_replicas=1, downscale_delay_s=10.0)
    assert fleet.run(60, 0)[-1] == 0
    assert fleet.run(1, 0.0)[-1] == 0
    assert fleet.run(1, 4)[0] == 1
    fleet.run(30, 4)
    assert (fleet.requested, len(fleet.replicas), fleet.unrouted) == (1, 1, 0)

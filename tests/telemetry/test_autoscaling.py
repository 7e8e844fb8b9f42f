"""The decision on plain numbers, what replicas report for it, and what Ray makes of the policies."""

import math
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

from serve_app.errors import ConfigurationError
from serve_app.telemetry.autoscaling import (
    Fleet,
    Hysteresis,
    LanguageModelPolicy,
    QueueTimePolicy,
    Signals,
    Strain,
    wanted_replicas,
)
from serve_app.telemetry.pressure import (
    KV_CACHE_USE,
    PENDING,
    QUEUE_MS,
    REJECTED_PER_S,
    RUNNING,
    SERVED_PER_S,
    STALLED,
)

NOW = 1_000_000.0


def wanted(running=2, asked=None, least=1, most=10, pressure=0.7, load=5.0, idle=False, strain=None, now=NOW):
    fleet = Fleet(running, running if asked is None else asked, least, most)
    return wanted_replicas(fleet, Signals(pressure, load, idle), strain, now, Hysteresis())[0]


@pytest.mark.parametrize(
    ("pressure", "replicas"),
    [(0.6, 4), (1.0, 4), (1.09, 4), (1.2, 5), (1.5, 6), (2.0, 8), (50.0, 8), (math.inf, 8)],
)
def test_pressure_asks_for_its_share_more_and_at_most_for_twice_as_many(pressure, replicas):
    assert wanted(running=4, pressure=pressure) == replicas


def test_replicas_that_still_start_are_waited_for():
    assert wanted(running=3, asked=4, pressure=9.0) == 4
    assert wanted(running=3, asked=4, pressure=0.7) == 4


@pytest.mark.parametrize(
    ("load", "strain", "replicas"),
    [
        (5.0, None, 5),  # nothing known: one fewer
        (5.0, Strain(20.0, NOW), 2),  # 30 to do, 16 for each
        (15.0, Strain(20.0, NOW), 6),  # 90 to do
        (90.0, Strain(20.0, NOW), 6),  # never more, where nothing presses
        (5.0, Strain(20.0, NOW - 1801), 5),  # forgotten
    ],
)
def test_a_short_queue_lets_go_as_many_as_the_work_allows(load, strain, replicas):
    assert wanted(running=6, pressure=0.1, load=load, strain=strain) == replicas


def test_work_keeps_one_replica_and_idleness_the_least():
    assert wanted(running=1, least=0, pressure=0.0) == 1
    assert wanted(running=1, least=0, pressure=0.0, load=0.0, idle=True) == 0
    assert wanted(running=8, least=2, pressure=0.0, load=0.0, idle=True) == 2


def test_without_a_replica_what_waits_wakes_one():
    assert wanted(running=0, least=0, pressure=math.inf, load=0.0) == 1
    assert wanted(running=0, asked=3, least=0, pressure=0.0, load=0.0) == 3
    assert wanted(running=0, least=0, pressure=0.0, load=0.0, idle=True) == 0


def test_the_load_that_was_too_much_is_remembered_but_not_that_of_a_stall():
    fleet = Fleet(2, 2, 1, 10)
    assert wanted_replicas(fleet, Signals(3.0, 7.0), None, NOW, Hysteresis())[1] == Strain(7.0, NOW)
    assert wanted_replicas(fleet, Signals(math.inf, 7.0), None, NOW, Hysteresis())[1] is None
    assert wanted_replicas(fleet, Signals(0.7, 7.0), Strain(9.0, NOW), NOW + 1, Hysteresis())[1] == Strain(9.0, NOW)
    assert wanted_replicas(fleet, Signals(0.1, 12.0), Strain(9.0, NOW), NOW, Hysteresis())[1] == Strain(12.0, NOW)


def context(reports, running=1, ongoing=1.0, queued=0.0, state=None, now=NOW, most=10, asked=None):
    """`reports` has a number or a series for each name, the same on every replica, two seconds apart."""
    series = {name: value if isinstance(value, list) else [value] * 5 for name, value in reports.items()}
    points = {
        name: [SimpleNamespace(timestamp=now - 2 * back, value=one) for back, one in enumerate(reversed(values))][::-1]
        for name, values in series.items()
    }
    return SimpleNamespace(
        app_name="serve_app",
        deployment_name="vision",
        current_num_replicas=running,
        target_num_replicas=running if asked is None else asked,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=most,
        policy_state=state or {},
        current_time=now,
        config=SimpleNamespace(look_back_period_s=10.0),
        raw_metrics={name: dict.fromkeys(range(running), values) for name, values in points.items()},
        total_num_requests=ongoing,
        total_queued_requests=queued,
    )


def decide(policy, reports, **known):
    """After a first look, half a minute ago, at the same number of replicas."""
    before = context({}, **(known | {"now": NOW - 30}))
    _, state = policy(before)
    return policy(context(reports, state=state, **known))[0]


CALM = {QUEUE_MS: 7.0, SERVED_PER_S: 10.0, REJECTED_PER_S: 0.0, PENDING: 0.0, STALLED: 0.0}


@pytest.mark.parametrize(
    ("reports", "replicas"),
    [
        ({}, 2),
        ({QUEUE_MS: 15.0}, 3),
        ({REJECTED_PER_S: [0, 0, 0, 0, 0.5]}, 3),
        ({PENDING: 3.0, SERVED_PER_S: 0.0, QUEUE_MS: 0.0}, 4),
        ({PENDING: [3.0, 0.0, 3.0, 3.0, 3.0]}, 2),  # batches come and go
        ({STALLED: 1.0}, 4),
        ({STALLED: [0.0, 0.0, 1.0, 1.0, 1.0]}, 2),
        ({QUEUE_MS: [500.0, 2.0, 2.0, 2.0, 7.0], SERVED_PER_S: [0.01, 10, 10, 10, 100]}, 2),  # one request of many
        ({QUEUE_MS: math.nan}, 1),
    ],
)
def test_triton_replicas_are_judged_by_what_they_reported_together(reports, replicas):
    assert decide(QueueTimePolicy(), CALM | reports, running=2) == replicas


def test_requests_that_wait_in_routers_are_pressure():
    assert decide(QueueTimePolicy(), CALM, running=2, queued=0.9) == 2
    assert decide(QueueTimePolicy(), CALM, running=2, queued=8.0) == 4


def test_reports_of_another_number_of_replicas_do_not_count():
    policy = QueueTimePolicy()
    _, state = policy(context({}, running=1, now=NOW - 60))
    hot = CALM | {QUEUE_MS: 500.0}
    replicas, state = policy(context(hot, running=1, state=state))
    assert replicas == 2
    replicas, state = policy(context(hot, running=2, state=state, now=NOW + 1))
    assert replicas == 2, "five reports, all older than the second replica"
    replicas, _ = policy(context(hot, running=2, state=state, now=NOW + 20))
    assert replicas == 4


def test_replicas_that_report_nothing_stay_as_they_are_while_there_are_requests():
    assert decide(QueueTimePolicy(), {}, running=3) == 3
    assert decide(QueueTimePolicy(), {}, running=3, queued=30.0) == 6
    assert decide(QueueTimePolicy(), {}, running=3, ongoing=0.0) == 1


@pytest.mark.parametrize(
    ("reports", "replicas"),
    [
        ({RUNNING: 6, PENDING: 0, KV_CACHE_USE: 0.6}, 2),
        ({RUNNING: 6, PENDING: 0, KV_CACHE_USE: 0.97}, 3),
        ({RUNNING: 6, PENDING: 9, KV_CACHE_USE: 0.6}, 4),
        ({RUNNING: 0, PENDING: 1, KV_CACHE_USE: 0.0}, 4),
        ({RUNNING: 1, PENDING: 0, KV_CACHE_USE: 0.1}, 1),
    ],
)
def test_language_models_are_judged_by_what_waits_and_by_their_memory(reports, replicas):
    assert decide(LanguageModelPolicy(), reports, running=2) == replicas


series = st.lists(st.floats(), min_size=1, max_size=6)
reported = st.dictionaries(st.sampled_from([*CALM, RUNNING, KV_CACHE_USE]), series)


@settings(deadline=None)
@given(
    steps=st.lists(st.tuples(reported, st.integers(0, 12), st.integers(0, 12), st.floats(0, 1e9), st.floats(0, 60))),
    policy=st.sampled_from([QueueTimePolicy, LanguageModelPolicy]),
    most=st.integers(1, 8),
)
def test_the_bounds_hold_whatever_is_reported(steps, policy, most):
    policy, state, now = policy(), {}, NOW
    for reports, running, asked, requests, later in steps:
        now += later
        known = {"running": running, "asked": asked, "ongoing": requests, "queued": requests / 2, "most": most}
        replicas, state = policy(context(reports, state=state, now=now, **known))
        assert isinstance(replicas, int)
        assert 1 <= replicas <= most


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("QueueTimePolicy", {"target_queue_ms": 25, "growth": 3.0}),
        ("LanguageModelPolicy", {"target_waiting": 4, "target_kv_cache": 0.9, "memory_s": 60}),
    ],
)
def test_ray_makes_the_policies_from_a_configuration(name, kwargs):
    policy = {"policy_function": f"serve_app.telemetry.autoscaling:{name}", "policy_kwargs": kwargs}
    config = AutoscalingConfig(max_replicas=4, policy=policy).model_dump()
    made = _resolve_policy_callable(AutoscalingPolicy(**config["policy"]))
    assert decide(made, CALM | {RUNNING: 1, KV_CACHE_USE: 0.6}, running=2) in (1, 2)


@pytest.mark.parametrize(
    ("policy", "kwargs", "message"),
    [
        (QueueTimePolicy, {"target_queue_ms": 0}, "target_queue_ms must be over 0, not 0"),
        (QueueTimePolicy, {"grow": 2}, "unexpected keyword argument 'grow'"),
        (QueueTimePolicy, {"growth": 1.0}, "under < 1 ≤ over < growth"),
        (LanguageModelPolicy, {"target_kv_cache": -1}, "target_kv_cache must be over 0, not -1"),
    ],
)
def test_what_can_not_be_meant_is_refused(policy, kwargs, message):
    with pytest.raises(ConfigurationError, match=message):
        policy(**kwargs)

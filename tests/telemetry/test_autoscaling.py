"""Scaling decisions: on plain numbers, on the reports of replicas, and through Ray's policy interface."""

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
    Overload,
    QueueTimePolicy,
    ScalingMetrics,
    Signals,
    require_policy,
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
CALM = {QUEUE_MS: 7.0, SERVED_PER_S: 10.0, REJECTED_PER_S: 0.0, PENDING: 0.0, STALLED: 0.0}


def wanted(running=2, requested=None, least=1, most=10, pressure=0.7, load=5.0, idle=False, overload=None, now=NOW):
    fleet = Fleet(running, running if requested is None else requested, least, most)
    return wanted_replicas(fleet, Signals(pressure, load, idle), overload, now, Hysteresis())[0]


def test_the_number_of_replicas_follows_pressure_load_and_bounds():
    recent = Overload(20.0, NOW)
    for case, replicas in (
        ({"running": 4, "pressure": 0.6}, 4),
        ({"running": 4, "pressure": 1.0}, 4),
        ({"running": 4, "pressure": 1.09}, 4),
        ({"running": 4, "pressure": 1.2}, 5),
        ({"running": 4, "pressure": 1.5}, 6),
        ({"running": 4, "pressure": 2.0}, 8),
        ({"running": 4, "pressure": 50.0}, 8),  # at most doubled
        ({"running": 4, "pressure": math.inf}, 8),
        ({"running": 3, "requested": 4, "pressure": 9.0}, 4),  # waits for the one that is starting
        ({"running": 3, "requested": 4, "pressure": 0.7}, 4),
        ({"running": 6, "pressure": 0.1}, 5),  # spare capacity unknown: one at a time
        ({"running": 6, "pressure": 0.1, "overload": recent}, 2),  # a load of 30, with 16 for each
        ({"running": 6, "pressure": 0.1, "load": 15.0, "overload": recent}, 6),
        ({"running": 6, "pressure": 0.1, "load": 90.0, "overload": recent}, 6),  # never more without pressure
        ({"running": 6, "pressure": 0.1, "overload": Overload(20.0, NOW - 1801)}, 5),  # forgotten
        ({"running": 1, "least": 0, "pressure": 0.0}, 1),
        ({"running": 1, "least": 0, "pressure": 0.0, "load": 0.0, "idle": True}, 0),
        ({"running": 8, "least": 2, "pressure": 0.0, "load": 0.0, "idle": True}, 2),
        ({"running": 0, "least": 0, "pressure": math.inf, "load": 0.0}, 1),
        ({"running": 0, "requested": 3, "least": 0, "pressure": 0.0, "load": 0.0}, 3),
        ({"running": 0, "least": 0, "pressure": 0.0, "load": 0.0, "idle": True}, 0),
    ):
        assert wanted(**case) == replicas, case


def test_an_overload_is_remembered_unless_it_was_a_stall():
    known = Overload(9.0, NOW)
    for signals, before, after in (
        (Signals(3.0, 7.0), None, Overload(7.0, NOW + 1)),
        (Signals(math.inf, 7.0), None, None),
        (Signals(0.7, 7.0), known, known),
        (Signals(0.1, 12.0), known, Overload(12.0, NOW)),  # a replica can do more than was thought
    ):
        assert wanted_replicas(Fleet(2, 2, 1, 10), signals, before, NOW + 1, Hysteresis())[1] == after, signals


def context(reports, running=1, ongoing=1.0, queued=0.0, state=None, now=NOW, most=10, requested=None):
    """`reports` has a value or a series for each name, the same on every replica, two seconds apart."""
    series = {name: value if isinstance(value, list) else [value] * 5 for name, value in reports.items()}
    points = {
        name: [SimpleNamespace(timestamp=now - 2 * back, value=one) for back, one in enumerate(reversed(values))][::-1]
        for name, values in series.items()
    }
    return SimpleNamespace(
        app_name="serve_app",
        deployment_name="vision",
        current_num_replicas=running,
        target_num_replicas=running if requested is None else requested,
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
    """The decision half a minute after a first one at the same number of replicas."""
    _, state = policy(context({}, **(known | {"now": NOW - 30})))
    return policy(context(reports, state=state, **known))[0]


def test_policies_decide_by_the_reports_of_all_replicas_and_by_requests_queued_in_routers():
    queue, language = QueueTimePolicy(), LanguageModelPolicy()
    for policy, reports, known, replicas in (
        (queue, CALM, {}, 2),
        (queue, CALM | {QUEUE_MS: 15.0}, {}, 3),
        (queue, CALM | {REJECTED_PER_S: [0, 0, 0, 0, 0.5]}, {}, 3),
        (queue, CALM | {PENDING: 3.0, SERVED_PER_S: 0.0, QUEUE_MS: 0.0}, {}, 4),
        (queue, CALM | {PENDING: [3.0, 0.0, 3.0, 3.0, 3.0]}, {}, 2),  # batches come and go
        (queue, CALM | {STALLED: 1.0}, {}, 4),
        (queue, CALM | {STALLED: [0.0, 0.0, 1.0, 1.0, 1.0]}, {}, 2),
        (queue, CALM | {QUEUE_MS: [500, 2, 2, 2, 7], SERVED_PER_S: [0.01, 10, 10, 10, 100]}, {}, 2),  # 1 slow request
        (queue, CALM | {QUEUE_MS: math.nan}, {}, 1),
        (queue, CALM, {"queued": 0.9}, 2),
        (queue, CALM, {"queued": 8.0}, 4),
        (queue, {}, {}, 2),  # nothing is known while there are requests
        (queue, {}, {"queued": 30.0}, 4),
        (queue, {}, {"ongoing": 0.0}, 1),
        (language, {RUNNING: 6, PENDING: 0, KV_CACHE_USE: 0.6}, {}, 2),
        (language, {RUNNING: 6, PENDING: 0, KV_CACHE_USE: 0.97}, {}, 3),
        (language, {RUNNING: 6, PENDING: 9, KV_CACHE_USE: 0.6}, {}, 4),
        (language, {RUNNING: 0, PENDING: 1, KV_CACHE_USE: 0.0}, {}, 4),
        (language, {RUNNING: 1, PENDING: 0, KV_CACHE_USE: 0.1}, {}, 1),
    ):
        assert decide(policy, reports, running=2, **known) == replicas, (reports, known)


def test_reports_from_before_a_change_of_the_replicas_do_not_count():
    policy, hot = QueueTimePolicy(), CALM | {QUEUE_MS: 500.0}
    _, state = policy(context({}, running=1, now=NOW - 60))
    for running, now, expected in ((1, NOW, 2), (2, NOW + 1, 2), (2, NOW + 20, 4)):
        replicas, state = policy(context(hot, running=running, state=state, now=now))
        assert replicas == expected, (running, now)


series = st.lists(st.floats(), min_size=1, max_size=6)
reported = st.dictionaries(st.sampled_from([*CALM, RUNNING, KV_CACHE_USE]), series)


@settings(deadline=None, max_examples=50)
@given(
    steps=st.lists(
        st.tuples(reported, st.integers(0, 12), st.integers(0, 12), st.floats(0, 1e9), st.floats(0, 60)), max_size=6
    ),
    policy=st.sampled_from([QueueTimePolicy, LanguageModelPolicy]),
    most=st.integers(1, 8),
)
def test_the_bounds_hold_for_any_reports(steps, policy, most):
    policy, state, now = policy(), {}, NOW
    for reports, running, requested, requests, later in steps:
        now += later
        known = {"running": running, "requested": requested, "ongoing": requests, "queued": requests / 2, "most": most}
        replicas, state = policy(context(reports, state=state, now=now, **known))
        assert isinstance(replicas, int)
        assert 1 <= replicas <= most


def test_the_controller_exports_every_signal_with_its_target(recorded):
    labels = {"application": "app", "deployment": "vision"}
    ScalingMetrics().set("app", "vision", 5, Signals(1.4, 3.0, measured={"queue_ms": (14.0, 10.0)}))
    assert recorded == [
        ("serve_app_autoscaling_max_replicas", labels, 5),
        ("serve_app_autoscaling_pressure", labels, 1.4),
        ("serve_app_autoscaling_signal", labels | {"signal": "queue_ms"}, 14.0),
        ("serve_app_autoscaling_target", labels | {"signal": "queue_ms"}, 10.0),
    ]
    ScalingMetrics().set("app", "vision", 5, Signals(math.inf, 3.0))
    assert recorded[-1] == ("serve_app_autoscaling_pressure", labels, 1000)


def configured(name, kwargs=None):
    path = name if ":" in name else f"serve_app.telemetry.autoscaling:{name}"
    return {"policy_function": path} | ({"policy_kwargs": kwargs} if kwargs else {})


def test_policies_can_be_configured_and_ray_creates_them():
    for policy in (
        configured("QueueTimePolicy"),
        configured("QueueTimePolicy", {"target_queue_ms": 25, "growth": 3.0}),
        configured("LanguageModelPolicy", {"target_waiting": 4, "target_kv_cache": 0.9, "memory_s": 60}),
        configured("ray.serve.autoscaling_policy:default_autoscaling_policy"),
    ):
        require_policy(policy)
        config = AutoscalingConfig(max_replicas=4, policy=policy).model_dump()
        made = _resolve_policy_callable(AutoscalingPolicy(**config["policy"]))
        if "ray." not in policy["policy_function"]:
            assert decide(made, CALM | {RUNNING: 1, KV_CACHE_USE: 0.6}, running=2) in (1, 2)


def test_a_policy_that_can_not_be_created_is_refused_with_the_reason():
    for policy, message in (
        ({}, "autoscaling: policy_function '' can't be imported"),
        (configured("QueuePolicy"), "QueuePolicy' can't be imported"),
        (configured("nowhere.at.all:Policy"), "No module named 'nowhere'"),
        (configured("QueueTimePolicy", {"target_ms": 5}), "unexpected keyword argument 'target_ms'"),
        (configured("QueueTimePolicy", {"target_queue_ms": 0}), "target_queue_ms must be greater than 0, got 0"),
        (configured("QueueTimePolicy", {"growth": 1.0}), "0 < under < 1 <= over < growth"),
        (configured("LanguageModelPolicy", {"target_kv_cache": -1}), "target_kv_cache must be greater than 0, got -1"),
        (
            configured("ray.serve.autoscaling_policy:default_autoscaling_policy", {"target_queue_ms": 5}),
            "default_autoscaling_policy must be a class, because Ray passes policy_kwargs to classes only",
        ),
    ):
        with pytest.raises(ConfigurationError) as refusal:
            require_policy(policy)
        assert message in refusal.value.message

"""What policies show of their decisions, and which of them are refused before anything starts."""

import math

import pytest

from serve_app.errors import ConfigurationError
from serve_app.telemetry.autoscaling import require_policy
from serve_app.telemetry.signals import SignalGauges

POLICIES = "serve_app.telemetry.autoscaling"


def test_every_signal_stands_beside_its_target(recorded):
    SignalGauges().show("app", "vision", 5, 1.4, {"queue_ms": (14.0, 10.0)})
    where = {"application": "app", "deployment": "vision"}
    assert recorded == [
        ("serve_app_autoscaling_max_replicas", where, 5),
        ("serve_app_autoscaling_pressure", where, 1.4),
        ("serve_app_autoscaling_signal", where | {"signal": "queue_ms"}, 14.0),
        ("serve_app_autoscaling_target", where | {"signal": "queue_ms"}, 10.0),
    ]


def test_a_stall_is_a_number_that_can_be_drawn(recorded):
    SignalGauges().show("app", "vision", 5, math.inf, {})
    assert recorded[1][2] == 1000


@pytest.mark.parametrize(
    "policy",
    [
        {"policy_function": f"{POLICIES}:QueueTimePolicy"},
        {"policy_function": f"{POLICIES}:QueueTimePolicy", "policy_kwargs": {"target_queue_ms": 5, "over": 1.2}},
        {"policy_function": f"{POLICIES}:LanguageModelPolicy", "policy_kwargs": {"target_waiting": 4}},
        {"policy_function": "ray.serve.autoscaling_policy:default_autoscaling_policy"},
    ],
)
def test_policies_that_can_be_made_pass(policy):
    require_policy(policy)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({}, "policy_function '' can't be imported"),
        ({"policy_function": f"{POLICIES}:QueuePolicy"}, "QueuePolicy' can't be imported"),
        ({"policy_function": "nowhere.at.all:Policy"}, "No module named 'nowhere'"),
        (
            {"policy_function": f"{POLICIES}:QueueTimePolicy", "policy_kwargs": {"target_ms": 5}},
            "unexpected keyword argument 'target_ms'",
        ),
        (
            {"policy_function": f"{POLICIES}:QueueTimePolicy", "policy_kwargs": {"target_queue_ms": 0}},
            "target_queue_ms must be over 0, not 0",
        ),
        (
            {"policy_function": f"{POLICIES}:LanguageModelPolicy", "policy_kwargs": {"under": 2}},
            "0 < under < 1",
        ),
        (
            {
                "policy_function": "ray.serve.autoscaling_policy:default_autoscaling_policy",
                "policy_kwargs": {"target_queue_ms": 5},
            },
            "is no class",
        ),
    ],
)
def test_a_policy_that_can_not_be_made_is_told_with_the_reason(policy, message):
    with pytest.raises(ConfigurationError) as told:
        require_policy(policy)
    assert message in told.value.message

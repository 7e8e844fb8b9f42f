"""Which deployments the composed application expects."""

import pytest

from serve_app.app import build, route_tracks
from serve_app.errors import ConfigurationError
from serve_app.settings import parse_settings


def test_models_of_ones_own_need_no_tracks_beside_them_and_a_pattern_that_misses_all_is_refused():
    own = {"name": "numbers", "model_repository": "tests/triton/embedded/models", "models": ["identity"]}
    args = {"triton": [own], "router": {"hosts": "numbers"}, "baseline": None}
    assert route_tracks(parse_settings(args)) == {}
    assert build(args)._bound_deployment.name == "router"
    missed = args | {"triton": [own | {"model_repository": None}]}
    with pytest.raises(ConfigurationError, match=r"no deployment serves any track: triton\[\].models matches none"):
        build(missed)


def test_a_router_that_hosts_a_language_model_has_the_models_place_and_scaling():
    scaling = {"min_replicas": 1, "max_replicas": 3}
    model = {"name": "llama", "num_cpus": 2, "deployment": {"max_ongoing_requests": 48, "autoscaling_config": scaling}}
    args = {"triton": [], "baseline": None, "llms": [model], "router": {"hosts": "llama"}}
    router = build(args)._bound_deployment
    assert router.name == "router"
    config, replica = router._deployment_config, router._replica_config
    assert replica.placement_group_bundles == [{"CPU": 2, "GPU": 1}]
    assert (config.autoscaling_config.max_replicas, config.max_ongoing_requests) == (3, 1024)
    assert "LanguageModelPolicy" in config.autoscaling_config.policy.policy_function
    assert config.graceful_shutdown_timeout_s > 300
    hosted, *_ = router.init_args
    assert (hosted.name, hosted.max_ongoing_requests, hosted.options) == ("llama", 48, {"in_router": True})

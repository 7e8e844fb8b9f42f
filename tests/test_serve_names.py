"""A misspelled setting of Ray Serve's is refused where Serve would ignore it."""

import pytest
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import (
    DeploymentSchema,
    HTTPOptionsSchema,
    RayActorOptionsSchema,
    ServeApplicationSchema,
    ServeDeploySchema,
    gRPCOptionsSchema,
)

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT, read_config
from serve_app.settings.serve_names import NAMES, require_known_names

SCHEMAS = {
    "": ServeDeploySchema, "http_options": HTTPOptionsSchema, "grpc_options": gRPCOptionsSchema,
    "applications": ServeApplicationSchema, "deployments": DeploymentSchema, "autoscaling_config": AutoscalingConfig,
    "ray_actor_options": RayActorOptionsSchema,
}  # fmt: skip


def test_the_names_are_those_of_serves_own_schemas():
    own = {kind: [name for name in schema.model_fields if name[0] != "_"] for kind, schema in SCHEMAS.items()}
    assert {kind: sorted(names.split()) for kind, names in NAMES.items()} == {
        kind: sorted(names) for kind, names in own.items()
    }


def test_a_name_that_serve_does_not_know_is_refused_with_its_place_and_the_nearest_one():
    for config, message in (
        ({"http_optionz": {}}, "http_optionz: Ray Serve has no such setting; did you mean 'http_options'?"),
        ({"http_options": {"prot": 1}}, "http_options.prot: Ray Serve has no such setting; did you mean 'port'?"),
        (
            {"applications": [{}, {"deployments": [{"name": "a", "max_onging_requests": 1}]}]},
            "applications[1].deployments[0].max_onging_requests: Ray Serve has no such setting; did you mean "
            "'max_ongoing_requests'?",
        ),
        (
            {"applications": [{"deployments": [{"autoscaling_config": {"xyz": 1}}]}]},
            "applications[0].deployments[0].autoscaling_config.xyz: Ray Serve has no such setting",
        ),
        ({1: 2}, "1: Ray Serve has no such setting"),
    ):
        with pytest.raises(ConfigurationError) as refusal:
            require_known_names(config)
        assert refusal.value.message == message


def test_what_others_read_is_left_to_them():
    free = {"user_config": {"any": 1}, "autoscaling_config": {"policy": {"policy_kwargs": {"any": 1}}}}
    require_known_names({"applications": [{"args": {"deployments": {"any": 1}}, "deployments": [free]}]})
    require_known_names(
        {"applications": [{"deployments": [{"autoscaling_config": "auto", "ray_actor_options": None}]}]}
    )


def test_reading_a_file_refuses_them(tmp_path):
    text = (PROJECT_ROOT / "configs" / "serve.yaml").read_text()
    path = tmp_path / "serve.yaml"
    path.write_text(text.replace("http_options:", "http_optionz:"))
    with pytest.raises(ConfigurationError, match="http_optionz: Ray Serve has no such setting"):
        read_config(path)

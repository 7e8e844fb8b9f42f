"""Sizes as a person writes them, and what they change in a RayService."""

import copy

import pytest
import yaml

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.manifests import render
from serve_app.tools.deploy.rollout.scale import Size, scaled, size_of
from serve_app.tools.deploy.scenarios.scenario import read_scenario


@pytest.fixture(scope="module")
def service():
    return render(read_scenario("yolo-gpu"))[-1]


def test_a_size_is_one_number_or_two():
    assert size_of("vision=2..6") == Size("vision", 2, 6)
    assert size_of("mistral7b=0..2") == Size("mistral7b", 0, 2)
    assert size_of("vision=3") == Size("vision", 3, 3)
    for text in ("vision", "vision=", "vision=-1", "vision=6..2", "vision=0", "vision=1..x", "=2"):
        with pytest.raises(ConfigurationError, match=f"^{text!r}: expected"):
            size_of(text)


def test_a_name_means_the_deployment_and_the_group_that_have_it(service):
    changed = scaled(service, [size_of("vision=2..6"), size_of("router=3..4")])
    config = yaml.safe_load(changed["spec"]["serveConfigV2"])
    deployments = {one["name"]: one for one in config["applications"][0]["deployments"]}
    for name, limits in (("vision", (2, 6)), ("router", (3, 4))):
        scaling = deployments[name]["autoscaling_config"]
        assert (scaling["min_replicas"], scaling["max_replicas"]) == limits
    groups = {one["groupName"]: one for one in changed["spec"]["rayClusterConfig"]["workerGroupSpecs"]}
    assert [groups["vision"][key] for key in ("minReplicas", "maxReplicas", "replicas")] == [2, 6, 2]
    assert groups["routers"] == service["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]


def test_pods_alone_leave_the_serve_configuration_as_it_is_written(service):
    before = copy.deepcopy(service)
    changed = scaled(service, [size_of("routers=2")])
    assert changed["spec"]["serveConfigV2"] == service["spec"]["serveConfigV2"]
    assert changed["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["minReplicas"] == 2
    assert service == before


def test_a_language_model_gets_its_numbers_where_they_do_not_restart_it():
    for scenario, name in (("llm-gpu", "mistral7b"), ("all", "qwen2.5-3b")):
        before = render(read_scenario(scenario))[-1]
        was, config = (
            yaml.safe_load(one["spec"]["serveConfigV2"])["applications"][0]
            for one in (before, scaled(before, [size_of(f"{name}=2..3")]))
        )
        assert config["args"] == was["args"]
        (model,) = [one for one in config["deployments"] if one["name"] == name]
        scaling = model["autoscaling_config"]
        assert (scaling["min_replicas"], scaling["max_replicas"]) == (2, 3)
        assert scaling["policy"], "Serve takes the whole of it, not what differs"
        assert [one for one in config["deployments"] if one != model] == was["deployments"]


def test_an_unknown_name_and_a_range_for_what_does_not_scale_are_refused(service):
    for text, message in (
        ("visoin=2", "no deployment or group of workers 'visoin'; did you mean 'vision'?"),
        ("nothing=2", "no deployment or group of workers 'nothing'; available: "),
    ):
        with pytest.raises(ConfigurationError) as caught:
            scaled(service, [size_of(text)])
        assert caught.value.message.startswith(message)
    fixed = render(read_scenario("yolo-gpu", ["deployments.bulk={autoscaling_config: null, num_replicas: 1}"]))[-1]
    deployments = yaml.safe_load(fixed["spec"]["serveConfigV2"])["applications"][0]["deployments"]
    (bulk,) = [one for one in deployments if one["name"] == "bulk"]
    assert bulk["num_replicas"] == 1
    with pytest.raises(ConfigurationError, match=r"^bulk doesn't scale by itself: give one number"):
        scaled(fixed, [size_of("bulk=1..2")])

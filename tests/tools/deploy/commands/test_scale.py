"""`scripts/deploy scale`, against the API server of these tests, which plays KubeRay's operator."""

import pytest
import yaml

SERVICE = ("RayService", "serve-app", "serve-app")


def group(owner, name):
    spec = owner["spec"].get("rayClusterConfig", owner["spec"])
    return next(one for one in spec["workerGroupSpecs"] if one["groupName"] == name)


@pytest.fixture
def yolo(deploy, secrets):
    ended = deploy("up", "yolo-gpu")
    assert ended.status == 0, ended.out + ended.err


def test_numbers_reach_the_running_cluster_and_what_was_applied_stays(deploy, yolo, kubernetes):
    (before,) = kubernetes.objects("RayCluster", "serve-app")
    assert deploy("upgrade", "yolo-gpu", "--set", "changes.router.max_wait_s=9").status == 0
    ended = deploy("scale", "yolo-gpu", "vision=2..5")
    assert ended.status == 0, ended.out + ended.err
    assert "in-place update" in ended.out.splitlines()[0]
    assert f"RayCluster/{before['metadata']['name']} vision: 2 to 5 pods" in ended.out
    assert "the next `up` brings its own back" in ended.out
    (after,) = kubernetes.objects("RayCluster", "serve-app")
    assert after["metadata"]["name"] == before["metadata"]["name"]
    for owner in (after, kubernetes.object(*SERVICE)):
        assert (group(owner, "vision")["minReplicas"], group(owner, "vision")["maxReplicas"]) == (2, 5)
    config = yaml.safe_load(kubernetes.object(*SERVICE)["spec"]["serveConfigV2"])["applications"][0]
    assert config["args"]["router"]["max_wait_s"] == 9, "what `upgrade` set without the file"
    (vision,) = [one for one in config["deployments"] if one["name"] == "vision"]
    assert vision["autoscaling_config"]["max_replicas"] == 5
    assert "scale vision=2..5" in deploy("history", "yolo-gpu").out


def test_up_brings_the_numbers_of_the_scenario_back(deploy, yolo, kubernetes):
    assert deploy("scale", "yolo-gpu", "routers=2..3").status == 0
    ended = deploy("up", "yolo-gpu")
    assert "groups of workers get other limits" in ended.out.splitlines()[0]
    (cluster,) = kubernetes.objects("RayCluster", "serve-app")
    assert (group(cluster, "routers")["minReplicas"], group(cluster, "routers")["maxReplicas"]) == (1, 8)
    assert "nothing to do" in deploy("up", "yolo-gpu").out


def test_a_wrong_size_changes_nothing(deploy, yolo, changed):
    before = changed()
    for sizes, message in ((["vision=x"], "expected NAME=NUMBER"), (["vison=1"], "did you mean 'vision'?")):
        ended = deploy("scale", "yolo-gpu", *sizes)
        assert (ended.status, message in ended.err) == (2, True), ended.err
    assert changed() == before


def test_a_service_that_was_never_applied_is_not_scaled(deploy, secrets):
    ended = deploy("scale", "yolo-gpu", "vision=2")
    assert (ended.status, "has no revisions" in ended.err) == (2, True)

import copy

import pytest

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.rollout.apply import DryRun
from serve_app.tools.deploy.rollout.upgrade import (
    Change,
    Plan,
    has_timed_out,
    plan_of,
    require_strategy,
    rollout_mark_of,
    with_rollout_mark,
)


def service():
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "s", "namespace": "n"},
        "spec": {
            "serveConfigV2": "applications: []\n",
            "upgradeStrategy": {"type": "NewCluster"},
            "rayClusterConfig": {
                "headGroupSpec": {"template": {"spec": {"containers": [{"name": "ray", "image": "head:1"}]}}},
                "workerGroupSpecs": [
                    {"groupName": "vision", "replicas": 1, "minReplicas": 1, "maxReplicas": 4, "template": {"spec": {}}}
                ],
            },
        },
    }


def plan(*changes):
    before, after = service(), service()
    for change in changes:
        change(after["spec"])
    return plan_of(DryRun(after, before, after))


def image(spec):
    spec["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] = "head:2"


def serve(spec):
    spec["serveConfigV2"] = "applications: [{}]\n"


def numbers(spec):
    spec["rayClusterConfig"]["workerGroupSpecs"][0]["maxReplicas"] = 8


def group(spec):
    spec["rayClusterConfig"]["workerGroupSpecs"].append({"groupName": "llm", "template": {"spec": {}}})


def first_group(spec):
    spec["rayClusterConfig"]["workerGroupSpecs"].insert(0, {"groupName": "llm", "template": {"spec": {}}})


def delay(spec):
    spec["rayClusterDeletionDelaySeconds"] = 7


def frozen(spec):
    spec["upgradeStrategy"]["type"] = "None"


def test_a_change_is_classified_as_kuberay_treats_it():
    for expected, *changes in (
        (Change.NONE,),
        (Change.IN_PLACE, serve),
        (Change.NEW_CLUSTER, image),
        (Change.NEW_CLUSTER, serve, image),
        (Change.SCALE, numbers),
        (Change.IN_PLACE, serve, numbers),
        (Change.GROUPS, group),
        (Change.GROUPS, group, numbers),
        (Change.NEW_CLUSTER, first_group),
        (Change.NEW_CLUSTER, group, image),
        (Change.SETTINGS, delay),
        (Change.FROZEN, image, frozen),
        (Change.IN_PLACE, serve, frozen),
    ):
        assert plan(*changes).change is expected, changes
    assert plan_of(DryRun(service(), None, None)) == Plan(Change.CREATE)


def test_a_plan_names_the_changed_fields():
    found = plan(image, numbers)
    assert found.paths == (
        "rayClusterConfig.headGroupSpec.template.spec.containers[ray].image",
        "rayClusterConfig.workerGroupSpecs[vision].maxReplicas",
    )
    assert "new cluster: it takes over" in str(found)
    assert "containers[ray].image" in str(found)


def test_a_strategy_that_does_not_fit_the_change_is_refused():
    with pytest.raises(ConfigurationError, match=r"--strategy in-place: .*image.* --strategy new-cluster"):
        require_strategy(plan(image), "in-place")
    with pytest.raises(ConfigurationError, match=r"--set upgrade\.strategy=new-cluster"):
        require_strategy(plan(image, frozen), "new-cluster")
    require_strategy(plan(serve), "in-place")
    require_strategy(plan(image), None)


def test_the_annotation_that_forces_a_new_cluster_is_kept():
    live = with_rollout_mark(service(), None, new_cluster=True)
    assert rollout_mark_of(live)
    assert plan_of(DryRun(live, service(), live)).change is Change.NEW_CLUSTER
    again = with_rollout_mark(service(), live, new_cluster=False)
    assert plan_of(DryRun(again, live, again)).change is Change.NONE
    assert rollout_mark_of(with_rollout_mark(service(), live, new_cluster=True)) != rollout_mark_of(live)


def test_the_annotation_is_added_to_a_copy():
    original = service()
    kept = copy.deepcopy(original)
    with_rollout_mark(original, None, new_cluster=True)
    assert original == kept
    assert with_rollout_mark(original, None, new_cluster=False) is original


def test_a_service_that_kuberay_gave_up_on_is_recognized():
    live = service() | {
        "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "InitializingTimeout"}]}
    }
    assert has_timed_out(live)
    assert not has_timed_out(service())
    assert not has_timed_out(None)

import copy

import pytest

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.changing.applying import Trial
from serve_app.tools.deploy.changing.upgrading import (
    Change,
    Plan,
    has_given_up,
    plan_of,
    require_strategy,
    rollout_of,
    with_rollout,
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


def plan(change):
    before, after = service(), service()
    change(after["spec"])
    return plan_of(Trial(after, before, after))


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


def both(*changes):
    def change(spec):
        for one in changes:
            one(spec)

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda spec: None, Change.NONE),
        (serve, Change.IN_PLACE),
        (image, Change.NEW_CLUSTER),
        (both(serve, image), Change.NEW_CLUSTER),
        (numbers, Change.SCALE),
        (both(serve, numbers), Change.IN_PLACE),
        (group, Change.GROUPS),
        (both(group, numbers), Change.GROUPS),
        (first_group, Change.NEW_CLUSTER),
        (both(group, image), Change.NEW_CLUSTER),
        (delay, Change.SETTINGS),
        (both(image, frozen), Change.FROZEN),
        (both(serve, frozen), Change.IN_PLACE),
    ],
)
def test_a_change_is_called_what_kuberay_will_do(change, expected):
    assert plan(change).change is expected


def test_a_plan_says_what_differs_by_names():
    found = plan(both(image, numbers))
    assert found.paths == (
        "rayClusterConfig.headGroupSpec.template.spec.containers[ray].image",
        "rayClusterConfig.workerGroupSpecs[vision].maxReplicas",
    )
    assert "a new cluster beside the running one" in str(found)
    assert "containers[ray].image" in str(found)


def test_a_service_that_is_not_there_is_new():
    assert plan_of(Trial(service(), None, None)) == Plan(Change.CREATE)


def test_in_place_is_refused_where_the_cluster_differs():
    with pytest.raises(ConfigurationError, match=r"--strategy in-place: .*image.* --strategy new-cluster"):
        require_strategy(plan(image), "in-place")
    require_strategy(plan(serve), "in-place")
    require_strategy(plan(image), None)


def test_a_new_cluster_is_refused_where_kuberay_may_make_none():
    with pytest.raises(ConfigurationError, match=r"--set upgrade\.strategy=new-cluster"):
        require_strategy(plan(both(image, frozen)), "new-cluster")


def test_a_new_cluster_is_forced_by_a_mark_that_stays():
    live = with_rollout(service(), None, anew=True)
    assert rollout_of(live)
    assert plan_of(Trial(live, service(), live)).change is Change.NEW_CLUSTER
    again = with_rollout(service(), live, anew=False)
    assert plan_of(Trial(again, live, again)).change is Change.NONE
    assert rollout_of(with_rollout(service(), live, anew=True)) != rollout_of(live)


def test_a_mark_changes_nobody_elses_manifest():
    original = service()
    kept = copy.deepcopy(original)
    with_rollout(original, None, anew=True)
    assert original == kept
    assert with_rollout(original, None, anew=False) is original


def test_a_service_that_kuberay_gave_up_is_known():
    live = service() | {
        "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "InitializingTimeout"}]}
    }
    assert has_given_up(live)
    assert not has_given_up(service())
    assert not has_given_up(None)

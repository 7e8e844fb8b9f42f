"""A head and a group of pods for each role: changes, deaths and autoscaling, of which clients notice nothing."""

import time

import pytest

from tests.kubernetes.conftest import MANY_PODS, NAME, NAMESPACE
from tests.load import Load

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1200)]
GROUPS = ("routers", "vision", "llm")


def generation(kubernetes):
    return kubernetes.object("rayservice", NAME)["metadata"]["generation"]


def ready(kubernetes, group):
    found = kubernetes.objects("pods", selector=f"ray.io/group={group}")
    return [
        one["metadata"]["name"]
        for one in found
        if any(each["type"] == "Ready" and each["status"] == "True" for each in one["status"].get("conditions", []))
    ]


def test_up_again_changes_nothing_though_the_operator_has_written_the_workers(many_pods, kubernetes, deploy, case):
    before = generation(kubernetes)
    with case("up without a change, with workers"):
        ended = deploy("up", MANY_PODS)
    assert "nothing to do" in ended.out
    assert generation(kubernetes) == before


def test_a_change_of_a_scenario_with_workers_is_no_conflict(many_pods, kubernetes, deploy, case):
    with case("a changed configuration, in place, with workers", many_pods):
        ended = deploy("upgrade", MANY_PODS, "--set", "changes.router.max_wait_s=50")
    assert "in-place update" in ended.out


def test_network_policies_select_the_labels_that_pods_have(many_pods, kubernetes):
    pods = [one["metadata"]["labels"] for one in kubernetes.objects("pods")]
    for policy in kubernetes.objects("networkpolicies"):
        wanted = policy["spec"]["podSelector"].get("matchLabels", {})
        assert any(wanted.items() <= labels.items() for labels in pods), policy["metadata"]["name"]


def test_a_killed_worker_loses_what_it_had_open_and_no_more(many_pods, kubernetes, case):
    """SIGKILL to all of a pod's processes, HAProxy's too, until the Service leaves it out."""
    pod, *_ = kubernetes.pods("vision")
    with case("the pod for pictures killed with SIGKILL", many_pods, cut=True):
        kubernetes.kubectl("exec", f"--namespace={NAMESPACE}", pod, "--", "pkill", "-KILL", "-f", "^ray::|raylet")
        kubernetes.until(lambda: set(ready(kubernetes, "vision")) - {pod} or restarts(kubernetes, pod), "it is back")
        kubernetes.until(lambda: ready(kubernetes, "vision"), "it is ready")


def restarts(kubernetes, pod):
    found = [one for one in kubernetes.objects("pods") if one["metadata"]["name"] == pod]
    return found and found[0]["status"]["containerStatuses"][0]["restartCount"]


def test_a_deleted_router_pod_drains(many_pods, kubernetes, case):
    pod, *_ = kubernetes.pods("routers")  # a changed configuration has brought a second one for a while
    with case("the pod of the routers deleted", many_pods):
        kubernetes.kubectl("delete", "pod", pod, f"--namespace={NAMESPACE}")
        kubernetes.until(lambda: set(ready(kubernetes, "routers")) - {pod}, "another has its place")


def test_pods_for_pictures_come_with_the_load_and_go_with_it(many_pods, kubernetes, deploy, case):
    """Ray's autoscaler owns the number; `up` leaves it alone."""
    kubernetes.until(lambda: len(kubernetes.pods("vision")) == 1, "one pod for pictures, as before the loads", 400)
    with case("vision from one pod to two, and back"):
        loads = [Load(many_pods) for _ in range(6)]
        contexts = [load.running() for load in loads]
        for context in contexts:
            context.__enter__()
        try:
            kubernetes.until(lambda: len(ready(kubernetes, "vision")) == 2, "a second pod for pictures", 300)
            ended = deploy("up", MANY_PODS, "--set", "changes.router.max_wait_s=50")
            assert "nothing to do" in ended.out
            assert len(kubernetes.pods("vision")) == 2
        finally:
            for context in contexts:
                context.__exit__(None, None, None)
        assert [one for load in loads for one in load.failed] == []
        kubernetes.until(lambda: len(kubernetes.pods("vision")) == 1, "one pod for pictures", 400)
        time.sleep(1)

"""A head and a group of pods for each role: changes, deaths and autoscaling, of which clients notice nothing."""

import json
import time

import httpx
import pytest

from tests.kubernetes.conftest import MANY_PODS, NAME, NAMESPACE
from tests.load import Load

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1200)]
STREAM_S = 300


def generation(kubernetes):
    return kubernetes.object("rayservice", NAME)["metadata"]["generation"]


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
        kubernetes.until(lambda: set(kubernetes.ready("vision")) - {pod} or restarts(kubernetes, pod), "it is back")
        kubernetes.until(lambda: kubernetes.ready("vision"), "it is ready")


def restarts(kubernetes, pod):
    found = [one for one in kubernetes.objects("pods") if one["metadata"]["name"] == pod]
    return found and found[0]["status"]["containerStatuses"][0]["restartCount"]


def test_a_deleted_router_pod_drains(many_pods, kubernetes, case):
    pod, *_ = kubernetes.pods("routers")  # a changed configuration has brought a second one for a while
    with case("the pod of the routers deleted", many_pods):
        kubernetes.kubectl("delete", "pod", pod, f"--namespace={NAMESPACE}")
        kubernetes.until(lambda: set(kubernetes.ready("routers")) - {pod}, "another has its place")


def test_a_scaled_group_survives_the_eviction_of_a_pod_and_an_only_pod_is_not_evicted(
    many_pods, kubernetes, deploy, case
):
    """The eviction API is what a drain of a node and Karpenter use."""
    (only,) = kubernetes.pods("llm")
    refused = evict(kubernetes, only)
    assert "violate the pod's disruption budget" in refused.stderr
    with case("two pods for pictures by `scale`, and one of them evicted", many_pods):
        ended = deploy("scale", MANY_PODS, "vision=2")
        assert "vision: 2 to 2 pods" in ended.out
        kubernetes.until(lambda: len(kubernetes.ready("vision")) == 2, "two pods for pictures")
        one, *_ = kubernetes.pods("vision")
        evicted = evict(kubernetes, one)
        assert evicted.returncode == 0, evicted.stderr
        kubernetes.until(lambda: one not in kubernetes.names("vision"), "it is gone")
        kubernetes.until(lambda: len(kubernetes.ready("vision")) == 2, "another one in its place")
    deploy("up", MANY_PODS, "--set", "changes.router.max_wait_s=50")


def evict(kubernetes, pod):
    asked = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    return kubernetes.kubectl("create", f"--raw={path}", "--filename=-", text=json.dumps(asked))


def test_a_stream_of_five_minutes_outlives_the_pod_that_it_passes_through(many_pods, kubernetes, case):
    pod, *_ = kubernetes.pods("routers")
    document = {"COUNT": [STREAM_S, 1.0]}
    with (
        case("the routers' pod deleted while a stream of five minutes passes through it", many_pods),
        httpx.stream(
            "POST", f"{many_pods}/v2/models/decoupled/generate_stream", json=document, timeout=2 * STREAM_S
        ) as answer,
    ):
        lines = (line for line in answer.iter_lines() if line.startswith("data:"))
        next(lines)
        kubernetes.kubectl("delete", "pod", pod, f"--namespace={NAMESPACE}", "--wait=false")
        assert 1 + sum(1 for _ in lines) == STREAM_S


def test_pods_for_pictures_come_with_the_load_and_go_with_it(many_pods, kubernetes, deploy, case):
    """Ray's autoscaler owns the number; `up` leaves it alone."""
    kubernetes.until(lambda: len(kubernetes.pods("vision")) == 1, "one pod for pictures, as before the loads", 400)
    with case("vision from one pod to two, and back"):
        loads = [Load(many_pods) for _ in range(6)]
        contexts = [load.running() for load in loads]
        for context in contexts:
            context.__enter__()
        try:
            kubernetes.until(lambda: len(kubernetes.ready("vision")) == 2, "a second pod for pictures", 300)
            ended = deploy("up", MANY_PODS, "--set", "changes.router.max_wait_s=50")
            assert "nothing to do" in ended.out
            assert len(kubernetes.pods("vision")) == 2
        finally:
            for context in contexts:
                context.__exit__(None, None, None)
        assert [one for load in loads for one in load.failed] == []
        kubernetes.until(lambda: len(kubernetes.pods("vision")) == 1, "one pod for pictures", 400)
        time.sleep(1)

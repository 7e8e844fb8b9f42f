"""KubeRay at play in the tests' Kubernetes API server when something goes wrong."""

import pytest


def scheduling(pod):
    found = [one for one in pod["status"].get("conditions", ()) if one["type"] == "PodScheduled"]
    return found[0].get("message", "") if found else ""


def waiting(pod):
    return [one["state"].get("waiting", {}).get("reason") for one in pod["status"].get("containerStatuses", ())]


@pytest.mark.parametrize(
    ("trouble", "state", "event"),
    [
        ({"trouble": "image_pull"}, lambda pod: waiting(pod) == ["ImagePullBackOff"], "Failed"),
        ({"trouble": "crash_loop", "exit_code": 3}, lambda pod: waiting(pod) == ["CrashLoopBackOff"], "BackOff"),
        (
            {"trouble": "oom_killed"},
            lambda pod: any(
                one["lastState"].get("terminated", {}).get("reason") == "OOMKilled"
                for one in pod["status"].get("containerStatuses", ())
            ),
            "BackOff",
        ),
        (
            {"trouble": "init_failed"},
            lambda pod: any(
                one["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff"
                for one in pod["status"].get("initContainerStatuses", ())
            ),
            "BackOff",
        ),
        (
            {"trouble": "unschedulable"},
            lambda pod: "3 Insufficient nvidia.com/gpu" in scheduling(pod),
            "FailedScheduling",
        ),
    ],
    ids=lambda value: value.get("trouble") if isinstance(value, dict) else None,
)
def test_a_pod_in_trouble_looks_like_it_and_heals(kubernetes, tiny, trouble, state, event):
    kubernetes.control(**trouble, group="vision")
    tiny.apply()
    kubernetes.until(lambda: tiny.pods("vision") and all(state(pod) for pod in tiny.pods("vision")))
    worker = tiny.pods("vision")[0]
    kubernetes.until(lambda: event in tiny.events(worker["metadata"]["name"]))
    assert all(one["status"] != "True" for one in worker["status"]["conditions"] if one["type"] == "Ready")
    assert tiny.condition("Ready")["reason"] == "Initializing"
    kubernetes.control(heal=True)
    assert tiny.ready()["serviceStatus"] == "Running"


def test_a_quota_of_the_cloud_is_told_by_karpenter(kubernetes, tiny):
    kubernetes.control(trouble="quota", group="vision")
    tiny.apply()
    kubernetes.until(lambda: "InsufficientCapacityError" in tiny.events())
    events = [one for one in kubernetes.objects("Event") if one["reason"] == "InsufficientCapacityError"]
    assert events[0]["involvedObject"]["kind"] == "NodeClaim"
    assert "VcpuLimitExceeded: You have requested more vCPU capacity" in events[0]["message"]


def test_the_log_of_the_life_before_a_crash_is_kept(kubernetes, tiny):
    kubernetes.control(logs={"vision/previous": ["RuntimeError: no GPU"]})
    kubernetes.control(trouble="crash_loop", group="vision")
    tiny.apply()
    kubernetes.until(lambda: "BackOff" in tiny.events("vision"))
    name = tiny.pods("vision")[0]["metadata"]["name"]
    kubernetes.until(lambda: waiting(tiny.pods("vision")[0]) == ["CrashLoopBackOff"])
    path = f"/api/v1/namespaces/default/pods/{name}/log?previous=true&container=ray-worker"
    assert kubernetes.request("GET", path) == (200, "RuntimeError: no GPU\n")


@pytest.mark.parametrize(("trouble", "state"), [("serve_failed", "DEPLOY_FAILED"), ("serve_unhealthy", "UNHEALTHY")])
def test_an_application_in_trouble_says_which_deployment_ails(kubernetes, tiny, trouble, state):
    kubernetes.control(trouble=trouble, deployment="vision", message="Error: no model named yolo")
    tiny.apply()

    def application():
        return tiny.status().get("pendingServiceStatus", {}).get("applicationStatuses", {}).get("app", {})

    kubernetes.until(lambda: application().get("status") == state)
    ailing = application()["serveDeploymentStatuses"]["vision"]
    assert ailing == {"status": state, "message": "Error: no model named yolo"}
    assert "vision" in application()["message"]


def test_one_that_takes_too_long_is_given_up(kubernetes, tiny):
    kubernetes.control(trouble="initializing_timeout")
    tiny.apply()
    kubernetes.until(lambda: tiny.condition("Ready").get("reason") == "InitializingTimeout")
    kubernetes.until(lambda: not kubernetes.objects("RayCluster"))
    assert "RayServiceInitializingTimeout" in tiny.events()
    kubernetes.control(heal=True, turns=5)
    assert tiny.condition("Ready")["reason"] == "InitializingTimeout"


def test_the_timeout_of_its_annotation_counts(kubernetes, tiny):
    kubernetes.control(trouble="image_pull")
    tiny.body["metadata"]["annotations"] = {"ray.io/initializing-timeout": "5s"}
    tiny.apply()
    kubernetes.until(lambda: tiny.condition("Ready").get("reason") == "InitializingTimeout")
    assert "within the configured timeout of 5s" in tiny.condition("Ready")["message"]


def test_what_kuberay_refuses_is_not_started(kubernetes, tiny):
    tiny.body["metadata"]["annotations"] = {"ray.io/initializing-timeout": "soon"}
    tiny.apply()
    kubernetes.until(lambda: tiny.condition("Ready").get("reason") == "ValidationFailed")
    assert not kubernetes.objects("RayCluster")
    assert "InvalidRayServiceSpec" in tiny.events()


def test_without_an_operator_nothing_happens(kubernetes, tiny):
    kubernetes.control(operator={"version": None})
    assert kubernetes.object("Deployment", "kuberay-operator", "kuberay-system") is None
    tiny.apply()
    kubernetes.control(turns=5)
    assert tiny.status() == {}
    kubernetes.control(operator={"version": "v1.7.0"})
    kubernetes.until(lambda: tiny.condition("Ready").get("status") == "True")


def test_the_operators_version_is_that_of_its_image(kubernetes):
    kubernetes.control(operator={"version": "v1.3.0"})
    operator = kubernetes.object("Deployment", "kuberay-operator", "kuberay-system")
    assert operator["spec"]["template"]["spec"]["containers"][0]["image"] == "quay.io/kuberay/operator:v1.3.0"
    assert operator["status"]["availableReplicas"] == 1


def test_an_unknown_trouble_is_named(kubernetes):
    status, answer = kubernetes.request("POST", "/_control", {"trouble": "flood"})
    assert (status, "no such trouble: 'flood'" in answer["error"]) == (400, True)

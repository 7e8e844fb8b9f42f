import json

import pytest


def test_status_of_a_service_that_serves(deploy, up):
    ended = deploy("status", "local-cpu")
    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "RayService serve-app/serve-app: serving, 1 endpoint"
    assert "  serve-app-serve-svc serve: http://serve-app-serve-svc.serve-app.svc:8000 (in the cluster)" in lines
    assert "  application serve_app: RUNNING" in lines
    assert "    vision: HEALTHY" in lines
    assert any(line.startswith("  head of serve-app-") and line.endswith(": 1 of 1 ready") for line in lines)
    assert "  Ready: True (NonZeroServeEndpoints) Number of serve endpoints is greater than 0" in lines
    assert "problems" not in lines
    assert "not shown: replicas: " in ended.out, "Ray's dashboard doesn't answer here"
    seen = json.loads(deploy("status", "local-cpu", "--json").out)
    assert (seen["serving"], seen["up_to_date"], seen["endpoints"], seen["problems"]) == (True, True, 1, [])
    assert [one["role"] for one in seen["clusters"]] == ["active"]


def test_status_of_a_missing_service(deploy):
    ended = deploy("status", "local-cpu")
    assert ended.status == 1
    assert "RayService serve-app/serve-app: not found" in ended.out
    assert "scripts/deploy up creates it" in ended.out


CASES = {
    "image": (
        {"trouble": "image_pull"},
        ["container ray-head of head: can't pull the image serve-app/cpu:0.1.0 (", ": not found", "images.registry"],
    ),
    "unschedulable": ({"trouble": "unschedulable"}, ["pods of head: unschedulable: 0/3 nodes are available"]),
    "quota": (
        {"trouble": "quota"},
        ["AWS quota: the account's vCPU limit of 64 is reached (VcpuLimitExceeded)", "Service Quotas"],
    ),
    "memory": ({"trouble": "oom_killed"}, ["container ray-head of head: ran out of memory and was killed"]),
    "operator": ({"trouble": "no_operator"}, ["the KubeRay operator hasn't processed it yet"]),
    "crash": (
        {"trouble": "crash_loop", "exit_code": 3},
        [
            "container ray-head of head: keeps crashing with exit code 3; last log lines: loading | no plans",
            "scripts/deploy logs SCENARIO --group head --container ray-head --previous",
        ],
    ),
}


@pytest.mark.parametrize(("trouble", "parts"), CASES.values(), ids=CASES)
def test_status_explains_why_a_service_is_not_serving(broken, kubernetes, trouble, parts):
    kubernetes.control(logs={"head/previous": ["loading", "no plans"]})
    ended = broken(parts[0], **trouble)
    assert ended.status == 1
    assert "RayService serve-app/serve-app: not serving, 0 endpoints" in ended.out
    for part in parts:
        assert part in ended.out


def test_status_names_a_failing_init_container_and_the_load_balancer(deploy, broken, secrets, kubernetes):
    broken(" of vision: fails with exit code 1", "yolo-gpu", trouble="init_failed", group="vision", exit_code=1)
    kubernetes.control(heal=True)
    assert deploy("up", "yolo-gpu").status == 0
    service = kubernetes.object("Service", "serve-app", "serve-app")
    (ingress,) = service["status"]["loadBalancer"]["ingress"]
    ended = deploy("status", "yolo-gpu")
    assert f"  serve-app serve: http://{ingress['hostname']}:8000\n" in ended.out
    assert f"  serve-app serve-grpc: {ingress['hostname']}:8001\n" in ended.out


def test_watch_prints_each_change_until_interrupted(deploy, up, kubernetes):
    running = deploy.start("status", "local-cpu", "--watch", "--json", "--every", "0.05")
    running.wait_for("serve-app")
    kubernetes.control(failing={"times": 3, "code": 503, "message": "apiserver starts", "path": "/apis/ray.io"})
    kubernetes.until(lambda: kubernetes.control(failures_left=True)["failures_left"] == 0)
    kubernetes.control(trouble="serve_unhealthy", deployment="vision")
    running.wait_for('"status": "UNHEALTHY"')
    ended = running.interrupt()
    assert ended.status == 130
    assert ended.err.count("answered 503: apiserver starts; retrying") == 1
    assert all(json.loads(line) for line in running.lines)
    assert len(set(running.lines)) == len(running.lines)


def test_replicas_are_counted_if_rays_dashboard_answers(deploy, dashboard):
    ended = deploy("status", "local-cpu")
    assert ended.status == 0
    assert "    vision: HEALTHY, 1 of 2 replicas" in ended.out.splitlines()
    assert dashboard.tokens == {"Bearer ray-token"}
    assert "ray-token" not in ended.out + ended.err

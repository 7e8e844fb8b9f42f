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
    assert "why" not in lines


def test_status_of_a_service_that_does_not_serve_says_why(deploy, kubernetes):
    kubernetes.control(trouble="image_pull")
    assert deploy("up", "local-cpu", "--timeout", "2").status == 1
    ended = deploy("status", "local-cpu")
    assert ended.status == 1
    assert "RayService serve-app/serve-app: not serving, 0 endpoints" in ended.out
    assert "container ray-head of head: can't pull the image serve-app/cpu:0.1.0" in ended.out
    assert "Failed Pod/serve-app-" in ended.out


def test_status_of_nothing(deploy):
    ended = deploy("status", "local-cpu")
    assert ended.status == 1
    assert "RayService serve-app/serve-app: not there" in ended.out
    assert "scripts/deploy up brings it there" in ended.out


def test_status_gives_the_load_balancers_address(deploy, kubernetes, secrets):
    secrets("yolo-gpu")
    assert deploy("up", "yolo-gpu").status == 0

    def ingress():
        service = kubernetes.object("Service", "serve-app", "serve-app")
        return service["status"].get("loadBalancer", {}).get("ingress")

    host = kubernetes.until(ingress)[0]["hostname"]
    ended = deploy("status", "yolo-gpu")
    assert ended.status == 0
    assert f"  serve-app serve: http://{host}:8000\n" in ended.out
    assert f"  serve-app serve-grpc: {host}:8001\n" in ended.out


def test_status_for_programs(deploy, up):
    ended = deploy("status", "local-cpu", "--json")
    seen = json.loads(ended.out)
    assert ended.status == 0
    assert (seen["serving"], seen["done"], seen["endpoints"], seen["reasons"]) == (True, True, 1, [])
    (cluster,) = seen["clusters"]
    assert cluster["role"] == "active"
    deployments = {one["name"]: one["status"] for one in cluster["applications"][0]["deployments"]}
    assert deployments["router"] == "HEALTHY"


def test_watch_tells_each_change_until_it_is_interrupted(deploy, kubernetes):
    running = deploy.start("status", "local-cpu", "--watch")
    running.wait_for("^waiting: RayService serve-app: isn't in the namespace")
    assert deploy("up", "local-cpu", "--no-wait").status == 0
    running.wait_for("condition Ready: True")
    ended = running.interrupt()
    assert ended.status == 130
    assert ended.err == ""


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_watch_goes_on_where_the_api_is_away_for_a_while(deploy, up, kubernetes, more):
    running = deploy.start("status", "local-cpu", "--watch", "--every", "0.1", *more)
    running.wait_for("serve-app")
    kubernetes.control(failing={"times": 3, "code": 503, "message": "apiserver starts", "path": "/apis/ray.io"})
    kubernetes.until(lambda: kubernetes.control(failures_left=True)["failures_left"] == 0)
    kubernetes.control(trouble="serve_unhealthy", deployment="vision")
    running.wait_for("UNHEALTHY")
    ended = running.interrupt()
    assert ended.status == 130
    assert ended.err.count("answers 503: apiserver starts; trying again") == 1


def test_watch_for_programs_gives_a_line_a_change(deploy, up, kubernetes):
    running = deploy.start("status", "local-cpu", "--watch", "--json", "--every", "0.1")
    running.wait_for('"serving": true')
    kubernetes.control(trouble="serve_unhealthy", deployment="vision")
    running.wait_for('"status": "UNHEALTHY"')
    running.interrupt()
    assert all(json.loads(line) for line in running.lines)
    assert len(set(running.lines)) == len(running.lines)


def test_replicas_are_counted_where_a_stand_in_for_rays_dashboard_answers(deploy, up, kubernetes, dashboard):
    ended = deploy("status", "local-cpu")
    assert ended.status == 0
    assert "    vision: HEALTHY, 1 of 2 replicas" in ended.out.splitlines()
    assert dashboard.tokens == {"Bearer ray-token"}
    assert "ray-token" not in ended.out + ended.err


def test_without_the_dashboard_the_rest_is_shown_and_what_is_missing_is_said(deploy, up):
    ended = deploy("status", "local-cpu")
    assert ended.status == 0
    assert "not shown: replicas: " in ended.out

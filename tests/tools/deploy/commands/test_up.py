ALL = {"Namespace", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "PodDisruptionBudget", "RayService"}
SERVICE = ("RayService", "serve-app", "serve-app")
PATH = "/apis/ray.io/v1/namespaces/serve-app/rayservices/serve-app"


def applied_kinds(kubernetes):
    selector = "app.kubernetes.io/managed-by=serve-app-deploy"
    return {kind for kind in ALL if kubernetes.objects(kind, selector=selector)}


def test_up_applies_a_scenario_and_reports_progress_until_it_serves(deploy, kubernetes):
    kubernetes.control(pace=0.2)  # slower than the command's look
    ended = deploy("up", "local-cpu")
    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "RayService serve-app/serve-app: a new service"
    assert lines.index("Namespace/serve-app created") < lines.index("RayService/serve-app created")
    for part in (
        "event Pulling Pod/serve-app-",
        "application serve_app in serve-app-",
        "deployment vision in serve-app-",
        "condition Ready: True (NonZeroServeEndpoints)",
        "RayService serve-app/serve-app: serving, 1 endpoint",
        "serve-app-serve-svc serve: http://serve-app-serve-svc.serve-app.svc:8000 (in the cluster)",
    ):
        assert part in ended.out
    live = kubernetes.object(*SERVICE)
    assert live["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "serve-app-deploy"
    assert {one["manager"] for one in live["metadata"]["managedFields"]} >= {"serve-app-deploy"}
    assert applied_kinds(kubernetes) == ALL
    kubernetes.control(pace=0.02)
    again = deploy("up", "local-cpu")
    assert again.status == 0
    assert "RayService serve-app/serve-app: no change to the RayService" in again.out
    assert "RayService/serve-app unchanged" in again.out
    assert " created" not in again.out
    assert kubernetes.object(*SERVICE)["metadata"]["generation"] == live["metadata"]["generation"]


def test_no_wait_applies_and_returns(deploy):
    ended = deploy("up", "local-cpu", "--no-wait")
    assert ended.status == 0
    assert ended.out.endswith("applied as revision 1; follow it with `scripts/deploy status`\n")


def test_up_retries_while_the_api_is_unavailable(deploy, kubernetes):
    kubernetes.control(trouble="not_ready")
    running = deploy.start("up", "local-cpu")
    running.wait_for("condition Ready: False")
    kubernetes.control(failing={"times": 3, "code": 503, "reason": "ServiceUnavailable", "message": "apiserver starts"})
    running.wait_for("answered 503: apiserver starts; retrying")
    kubernetes.control(heal=True)
    assert running.end().status == 0


def test_an_interrupted_up_is_finished_by_the_next(deploy, kubernetes):
    """By an error, by a signal to the wait, and by a kill between two objects."""
    kubernetes.control(failing={"code": 500, "message": "etcd is full", "path": "/serve-app-revision-1"})
    ended = deploy("up", "local-cpu")
    assert ended.status == 2
    assert "answered 500: etcd is full" in ended.err
    assert applied_kinds(kubernetes) == {"Namespace"}
    running = deploy.start("up", "local-cpu")
    running.wait_for("NetworkPolicy/serve-app-closed created")
    running.process.kill()
    running.end()
    kubernetes.control(trouble="not_ready")
    running = deploy.start("up", "local-cpu")
    running.wait_for("condition Ready: False")
    ended = running.interrupt()
    assert ended.status == 130
    assert "interrupted; the cluster keeps working, run the same command again to continue" in ended.err
    kubernetes.control(heal=True)
    assert deploy("up", "local-cpu").status == 0
    assert applied_kinds(kubernetes) == ALL


def test_objects_that_a_scenario_no_longer_has_are_deleted(deploy, kubernetes):
    group = '{"image": "cpu", "cpu": 2, "memory": "2Gi"}'
    groups = [part for role in ("vision", "routers", "llm") for part in ("--set", f"workers.{role}={group}")]
    assert deploy("up", "local-cpu", "--no-wait", *groups).status == 0
    assert kubernetes.object("PodDisruptionBudget", "serve-app-vision", "serve-app")
    shown = deploy("diff", "local-cpu")
    assert shown.status == 1
    assert "--- live PodDisruptionBudget/serve-app-vision" in shown.out
    assert "-kind: PodDisruptionBudget" in shown.out
    ended = deploy("up", "local-cpu", "--no-wait")
    assert "PodDisruptionBudget/serve-app-vision deleted" in ended.out
    assert kubernetes.object("PodDisruptionBudget", "serve-app-vision", "serve-app") is None


def test_a_timeout_ends_with_the_status_and_its_problems(deploy, broken):
    broken("can't pull the image", trouble="image_pull")
    ended = deploy("up", "local-cpu", "--timeout", "0.1")
    assert ended.status == 1
    assert "serve-app/serve-app isn't serving this revision: timed out after 0.1 s" in ended.out
    assert "RayService serve-app/serve-app: not serving, 0 endpoints" in ended.out
    assert "  container ray-head of head: can't pull the image serve-app/cpu:0.1.0 (" in ended.out
    assert "run the same command again to keep waiting, or scripts/deploy rollback to go back" in ended.out


def test_permanent_problems_end_the_wait_at_once(deploy, kubernetes):
    cases = [
        (
            {"trouble": "serve_failed", "deployment": "vision", "message": "serve_app.errors.ModelLoadError: no yolo"},
            "  deployment vision: DEPLOY_FAILED: no yolo; change the configuration",
        ),
        (
            {"trouble": "invalid", "message": "headGroupSpec needs a container"},
            "  RayService serve-app: KubeRay rejects it: headGroupSpec needs a container; change the scenario",
        ),
    ]
    for trouble, problem in cases:
        kubernetes.control(reset={})
        kubernetes.control(**trouble)
        ended = deploy("up", "local-cpu", "--timeout", "50")
        assert ended.status == 1
        assert "isn't serving this revision: it can't recover without a change" in ended.out
        assert problem in ended.out


def test_up_recreates_a_service_that_kuberay_gave_up_on(deploy, kubernetes):
    kubernetes.control(trouble="not_ready")
    kubernetes.control(trouble="initializing_timeout")
    ended = deploy("up", "local-cpu", "--timeout", "50")
    assert ended.status == 1
    assert "KubeRay gave up on it" in ended.out
    before = kubernetes.object(*SERVICE)["metadata"]["uid"]
    kubernetes.control(heal=True)
    again = deploy("up", "local-cpu")
    assert again.status == 0, again.out
    assert "KubeRay gave up on this RayService and ignores it: deleting and recreating it" in again.out
    assert kubernetes.object(*SERVICE)["metadata"]["uid"] != before


def test_fields_of_other_managers_are_kept_unless_forced(deploy, up, kubernetes):
    theirs = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "serve-app"},
        "spec": {"rayClusterDeletionDelaySeconds": 7},
    }
    apply = "application/apply-patch+yaml"
    assert kubernetes.request("PATCH", f"{PATH}?fieldManager=jane&force=true", theirs, apply)[0] == 200
    ended = deploy("up", "local-cpu")
    assert ended.status == 2
    assert 'conflict with "jane"' in ended.err
    assert "--force-conflicts overwrites these fields" in ended.err
    assert kubernetes.object(*SERVICE)["spec"]["rayClusterDeletionDelaySeconds"] == 7
    assert deploy("up", "local-cpu", "--force-conflicts").status == 0
    assert kubernetes.object(*SERVICE)["spec"]["rayClusterDeletionDelaySeconds"] != 7


def test_a_terminal_shows_a_report_that_is_redrawn(deploy, kubernetes):
    ended = deploy.on_terminal("up", "local-cpu")
    assert ended.status == 0, ended.out
    assert "RayService/serve-app created" in ended.out
    assert "\x1b[2K" in ended.out, "lines are drawn over"
    assert "\x1b[32mRayService serve-app/serve-app: serving, 1 endpoint\x1b[0m" in ended.out.split("\x1b[2K")[-1]

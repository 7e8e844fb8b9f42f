import re

import pytest

NAMESPACE = "serve-app"


ALL = {"Namespace", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "PodDisruptionBudget", "RayService"}


def kinds(kubernetes):
    """Of what was applied."""
    ours = "app.kubernetes.io/managed-by=serve-app-deploy"
    return {kind for kind in ALL if kubernetes.objects(kind, selector=ours)}


def test_up_brings_a_scenario_to_serve_and_tells_how_it_comes(deploy, kubernetes):
    ended = deploy("up", "local-cpu")
    assert (ended.status, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "RayService serve-app/serve-app: a new service"
    assert lines.index("Namespace/serve-app created") < lines.index("RayService/serve-app created")
    for told in (
        "event Pulling Pod/serve-app-",
        "application serve_app in serve-app-",
        "deployment vision in serve-app-",
        "condition Ready: True (NonZeroServeEndpoints)",
        "RayService serve-app/serve-app: serving, 1 endpoint",
        "serve-app-serve-svc serve: http://serve-app-serve-svc.serve-app.svc:8000 (in the cluster)",
    ):
        assert told in ended.out
    assert "waiting: " not in ended.out
    live = kubernetes.object("RayService", "serve-app", NAMESPACE)
    assert live["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "serve-app-deploy"
    assert {one["manager"] for one in live["metadata"]["managedFields"]} >= {"serve-app-deploy"}
    assert kinds(kubernetes) == ALL


def test_a_second_up_changes_nothing_and_still_says_that_it_serves(deploy, up, kubernetes):
    before = kubernetes.object("RayService", "serve-app", NAMESPACE)["metadata"]["generation"]
    ended = deploy("up", "local-cpu")
    assert ended.status == 0
    assert "RayService serve-app/serve-app: nothing of the RayService changes" in ended.out
    assert "RayService/serve-app unchanged" in ended.out
    assert " created" not in ended.out
    assert " changed" not in ended.out
    assert kubernetes.object("RayService", "serve-app", NAMESPACE)["metadata"]["generation"] == before
    assert deploy("history", "local-cpu").out.count("\n") == 1


def test_up_waits_for_groups_on_gpus_and_their_init_containers(deploy, kubernetes, secrets):
    secrets("yolo-gpu")
    ended = deploy("up", "yolo-gpu")
    assert ended.status == 0, ended.out + ended.err
    for group in ("head", "routers", "vision"):
        assert f"pods of {group} in serve-app-" in ended.out
    assert "init container " in ended.out


def test_overrides_and_another_namespace_reach_the_cluster(deploy, kubernetes):
    ended = deploy(
        "up", "local-cpu", "--no-wait", "--namespace", "elsewhere", "--set", "images.tag=9.9.1", "--set", "name=two"
    )
    assert ended.status == 0, ended.err
    assert "applied as revision 1" in ended.out
    live = kubernetes.object("RayService", "two", "elsewhere")
    head = live["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert head["image"].endswith(":9.9.1")


def test_at_a_timeout_up_says_what_is_missing_and_a_second_run_finishes(deploy, kubernetes):
    kubernetes.control(trouble="not_ready")
    ended = deploy("up", "local-cpu", "--timeout", "2")
    assert ended.status == 1
    assert "serve-app/serve-app doesn't serve what was applied: not after 2 s" in ended.out
    assert "missing: pods of head: 0 of 1 ready" in ended.out
    assert "missing: an endpoint that serves" in ended.out
    kubernetes.control(heal=True)
    again = deploy("up", "local-cpu")
    assert again.status == 0, again.out
    assert "RayService/serve-app unchanged" in again.out


def test_what_is_interrupted_is_taken_up_again(deploy, kubernetes):
    kubernetes.control(trouble="slow", factor=30)
    running = deploy.start("up", "local-cpu")
    running.wait_for("condition Ready: False")
    ended = running.interrupt()
    assert ended.status == 130
    assert "goes on in the cluster" in ended.err
    kubernetes.control(heal=True)
    assert deploy("up", "local-cpu").status == 0


def test_an_api_that_is_away_for_a_while_is_waited_for(deploy, kubernetes):
    kubernetes.control(trouble="not_ready")
    running = deploy.start("up", "local-cpu")
    running.wait_for("condition Ready: False")
    kubernetes.control(failing={"times": 3, "code": 503, "reason": "ServiceUnavailable", "message": "apiserver starts"})
    running.wait_for("answers 503: apiserver starts; trying again")
    kubernetes.control(heal=True)
    assert running.end().status == 0


def test_a_run_that_breaks_off_after_the_first_object_is_finished_by_the_next(deploy, kubernetes):
    kubernetes.control(failing={"times": 1, "code": 500, "message": "etcd is full", "path": "/serve-app-revision-1"})
    ended = deploy("up", "local-cpu")
    assert ended.status == 2
    assert "answers 500: etcd is full" in ended.err
    assert kinds(kubernetes) == {"Namespace"}
    assert deploy("up", "local-cpu").status == 0


def test_a_run_that_is_killed_between_two_objects_is_finished_by_the_next(deploy, kubernetes):
    running = deploy.start("up", "local-cpu")
    running.wait_for("NetworkPolicy/serve-app-closed created")
    running.process.kill()
    running.end()
    assert deploy("up", "local-cpu").status == 0
    assert kinds(kubernetes) == ALL


def test_what_a_scenario_no_longer_has_is_removed(deploy, up, kubernetes):
    """A budget for a group that is gone."""
    more = '{"image": "cpu", "cpu": 1, "memory": "2Gi"}'
    groups = [part for role in ("vision", "routers", "llm") for part in ("--set", f"workers.{role}={more}")]
    ended = deploy("up", "local-cpu", "--no-wait", *groups)
    assert ended.status == 0, ended.err
    assert kubernetes.object("PodDisruptionBudget", "serve-app-vision", NAMESPACE)
    ended = deploy("up", "local-cpu", "--no-wait")
    assert "PodDisruptionBudget/serve-app-vision deleted" in ended.out
    assert kubernetes.object("PodDisruptionBudget", "serve-app-vision", NAMESPACE) is None


TROUBLES = [
    (
        {"trouble": "image_pull"},
        [
            "container ray-head of head: can't pull the image serve-app/cpu:0.1.0 (",
            ": not found",
            "images.registry",
        ],
    ),
    ({"trouble": "unschedulable"}, ["pods of head: no node takes them: 0/3 nodes are available"]),
    (
        {"trouble": "quota"},
        [
            "AWS quota: no more machines: the account's vCPU limit of 64 is reached (VcpuLimitExceeded)",
            "Service Quotas",
        ],
    ),
    ({"trouble": "oom_killed"}, ["container ray-head of head: ran out of memory and was killed"]),
    ({"trouble": "no_operator"}, ["the KubeRay operator hasn't looked at it yet"]),
]


@pytest.mark.parametrize(("trouble", "told"), TROUBLES, ids=lambda one: one["trouble"] if isinstance(one, dict) else "")
def test_a_trouble_is_explained_while_it_lasts_and_up_goes_on_when_it_is_mended(deploy, kubernetes, trouble, told):
    kubernetes.control(**trouble)
    running = deploy.start("up", "local-cpu")
    for part in told:
        running.wait_for(f"^waiting: .*{re.escape(part)}")
    kubernetes.control(heal=True)
    ended = running.end()
    assert ended.status == 0, ended.out


def test_a_crash_is_told_with_its_last_words(deploy, kubernetes):
    kubernetes.control(trouble="crash_loop", exit_code=3)
    kubernetes.control(logs={"head/previous": ["loading the plans", "no plans: giving up"]})
    ended = deploy("up", "local-cpu", "--timeout", "4")
    assert ended.status == 1
    assert "container ray-head of head: crashes again and again with status 3" in ended.out
    assert "no plans: giving up" in ended.out
    assert "--group head --container ray-head --previous" in ended.out


def test_an_init_container_that_fails_is_named(deploy, kubernetes, secrets):
    secrets("yolo-gpu")
    kubernetes.control(trouble="init_failed", group="vision", exit_code=1)
    ended = deploy("up", "yolo-gpu", "--timeout", "5")
    assert ended.status == 1
    assert "init container " in ended.out
    assert " of vision: fails with status 1" in ended.out


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (
            {
                "trouble": "serve_failed",
                "deployment": "vision",
                "message": "serve_app.errors.ModelLoadError: yolo: gone",
            },
            "deployment vision: ",
        ),
        ({"trouble": "invalid", "message": "headGroupSpec should have a container"}, "KubeRay refuses it: "),
    ],
    ids=["serve_failed", "invalid"],
)
def test_what_cannot_mend_itself_ends_the_wait_at_once(deploy, kubernetes, trouble, told):
    kubernetes.control(**trouble)
    ended = deploy("up", "local-cpu", "--timeout", "50")
    assert ended.status == 1
    assert "it can't come by itself" in ended.out
    assert f"why: {told}" in ended.out or f": {told}" in ended.out
    assert trouble["message"].removeprefix("serve_app.errors.ModelLoadError: ") in ended.out


def test_a_service_that_kuberay_has_given_up_is_made_anew_by_the_next_up(deploy, kubernetes):
    kubernetes.control(trouble="not_ready")
    kubernetes.control(trouble="initializing_timeout")
    ended = deploy("up", "local-cpu", "--timeout", "50")
    assert ended.status == 1
    assert "KubeRay has given it up" in ended.out
    before = kubernetes.object("RayService", "serve-app", NAMESPACE)["metadata"]["uid"]
    kubernetes.control(heal=True)
    again = deploy("up", "local-cpu")
    assert again.status == 0, again.out
    assert "it is deleted and made anew" in again.out
    assert kubernetes.object("RayService", "serve-app", NAMESPACE)["metadata"]["uid"] != before


def test_fields_that_somebody_else_has_set_are_left_unless_they_are_taken_over(deploy, up, kubernetes):
    path = "/apis/ray.io/v1/namespaces/serve-app/rayservices/serve-app?fieldManager=jane&force=true"
    theirs = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "serve-app"},
        "spec": {"rayClusterDeletionDelaySeconds": 7},
    }
    status, _ = kubernetes.request("PATCH", path, theirs, media="application/apply-patch+yaml")
    assert status == 200
    ended = deploy("up", "local-cpu")
    assert ended.status == 2
    assert 'conflict with "jane"' in ended.err
    assert "--force-conflicts takes these fields over" in ended.err
    assert kubernetes.object("RayService", "serve-app", NAMESPACE)["spec"]["rayClusterDeletionDelaySeconds"] == 7
    assert deploy("up", "local-cpu", "--force-conflicts").status == 0
    assert kubernetes.object("RayService", "serve-app", NAMESPACE)["spec"]["rayClusterDeletionDelaySeconds"] != 7


def test_on_a_terminal_the_report_is_redrawn_and_the_end_stays(deploy, kubernetes):
    ended = deploy.on_terminal("up", "local-cpu")
    assert ended.status == 0, ended.out
    assert "RayService/serve-app created" in ended.out
    assert "\x1b[2K" in ended.out, "lines are drawn over"
    assert "\x1b[32mRayService serve-app/serve-app: serving, 1 endpoint\x1b[0m" in ended.out.split("\x1b[2K")[-1]

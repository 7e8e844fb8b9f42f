import pytest


@pytest.fixture
def vision(deploy, kubernetes, secrets):
    """yolo-gpu, serving: a head, routers, and a group with init containers."""
    secrets("yolo-gpu")
    assert deploy("up", "yolo-gpu").status == 0


def test_logs_of_every_pod_come_with_its_name(deploy, vision, kubernetes):
    kubernetes.control(logs={"vision": ["hello from vision"], "head": ["hello from the head"]})
    ended = deploy("logs", "yolo-gpu")
    assert ended.status == 0
    lines = ended.out.splitlines()
    assert any("-vision-worker-" in line.split("]")[0] and line.endswith("] hello from vision") for line in lines)
    assert any("-head-" in line.split("]")[0] and line.endswith("] hello from the head") for line in lines)
    assert all(line.startswith("[serve-app-") for line in lines)


def test_logs_of_one_group_and_one_container(deploy, vision, kubernetes):
    kubernetes.control(logs={"vision": ["from vision"], "head": ["from the head"]})
    of_group = deploy("logs", "yolo-gpu", "--group", "vision").out
    assert "from vision" in of_group
    assert "from the head" not in of_group
    pods = kubernetes.objects("Pod", "serve-app", "ray.io/group=vision")
    init = pods[0]["spec"]["initContainers"][0]["name"]
    ended = deploy("logs", "yolo-gpu", "--group", "vision", "--container", init)
    assert ended.status == 0
    assert "-vision-worker-" in ended.out


def test_the_tail_is_as_long_as_it_is_asked_for(deploy, up, kubernetes):
    kubernetes.control(logs={"head": [f"line {number}" for number in range(50)]})
    ended = deploy("logs", "local-cpu", "--tail", "2")
    assert [line.split("] ")[1] for line in ended.out.splitlines()] == ["line 48", "line 49"]


def test_follow_goes_on_until_it_is_interrupted(deploy, up, kubernetes):
    kubernetes.control(logs={"head": ["first"]})
    running = deploy.start("logs", "local-cpu", "--follow")
    running.wait_for(r"\] first$")
    kubernetes.control(logs={"head": ["later"]})
    running.wait_for(r"\] later$")
    ended = running.interrupt()
    assert ended.status == 130
    assert ended.err == ""


def test_the_run_before_a_restart_can_be_read(deploy, kubernetes):
    kubernetes.control(trouble="crash_loop")
    kubernetes.control(logs={"head/previous": ["the end of it"]})
    assert deploy("up", "local-cpu", "--timeout", "3").status == 1
    ended = deploy("logs", "local-cpu", "--previous")
    assert ended.status == 0
    assert "the end of it" in ended.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--group", "llm"), "no pods of group 'llm'; there are head"),
        (("--container", "sidecar"), "no container 'sidecar' in these pods; there are ray-head"),
        (("--deployment", "vision", "--group", "head"), "--deployment reads the logs of Serve's replicas"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(deploy, up, arguments, told):
    ended = deploy("logs", "local-cpu", *arguments)
    assert ended.status == 2
    assert told in ended.err


def test_a_pod_whose_log_cannot_be_read_is_said_and_counts_as_none(deploy, kubernetes):
    kubernetes.control(trouble="image_pull")
    assert deploy("up", "local-cpu", "--timeout", "1").status == 1
    ended = deploy("logs", "local-cpu")
    assert ended.status == 1
    assert "no log: " in ended.err


def test_logs_of_a_deployments_replicas_with_a_stand_in_for_rays_dashboard(deploy, up, dashboard):
    ended = deploy("logs", "local-cpu", "--deployment", "vision", "--tail", "5")
    assert ended.status == 0, ended.err
    assert sorted(ended.out.splitlines()) == [
        "[v1] serve/replica_v1.log of n1, 5 lines",
        "[v2] serve/replica_v2.log of n2, 5 lines",
    ]


def test_an_unknown_deployment_is_named_with_those_there_are_with_a_stand_in_for_rays_dashboard(deploy, up, dashboard):
    ended = deploy("logs", "local-cpu", "--deployment", "visoin")
    assert ended.status == 2
    assert ended.err == "error: Serve has no deployment 'visoin'; there are router, vision\n"

def test_logs_are_selected_by_group_container_and_tail(deploy, secrets, kubernetes):
    assert deploy("up", "yolo-gpu").status == 0
    kubernetes.control(logs={"vision": [f"vision {number}" for number in range(50)], "head": ["from the head"]})
    ended = deploy("logs", "yolo-gpu")
    assert ended.status == 0
    lines = [line.split("] ", 1) for line in ended.out.splitlines()]
    assert all(prefix.startswith("[serve-app-") for prefix, _ in lines)
    assert any("-vision-worker-" in prefix and text == "vision 49" for prefix, text in lines)
    assert any("-head-" in prefix and text == "from the head" for prefix, text in lines)
    of_group = deploy("logs", "yolo-gpu", "--group", "vision", "--tail", "2").out.splitlines()
    assert [line.split("] ")[1] for line in of_group] == ["vision 48", "vision 49"]
    pod = kubernetes.objects("Pod", "serve-app", "ray.io/group=vision")[0]
    init = pod["spec"]["initContainers"][0]["name"]
    ended = deploy("logs", "yolo-gpu", "--group", "vision", "--container", init)
    assert ended.status == 0
    assert "-vision-worker-" in ended.out


def test_follow_prints_new_lines_until_interrupted(deploy, up, kubernetes):
    kubernetes.control(logs={"head": ["first"]})
    running = deploy.start("logs", "local-cpu", "--follow")
    running.wait_for(r"\] first$")
    kubernetes.control(logs={"head": ["later"]})
    running.wait_for(r"\] later$")
    ended = running.interrupt()
    assert (ended.status, ended.err) == (130, "")


def test_the_previous_run_of_a_container_can_be_read(deploy, broken, kubernetes):
    kubernetes.control(logs={"head/previous": ["the last line"]})
    broken("keeps crashing", trouble="crash_loop")
    ended = deploy("logs", "local-cpu", "--previous")
    assert ended.status == 0
    assert "the last line" in ended.out


def test_a_log_that_cannot_be_read_is_an_error(deploy, broken):
    broken("can't pull", trouble="image_pull")
    ended = deploy("logs", "local-cpu")
    assert ended.status == 1
    assert "] error: " in ended.err


def test_logs_of_a_deployment_come_from_rays_dashboard(deploy, dashboard):
    ended = deploy("logs", "local-cpu", "--deployment", "vision", "--tail", "5")
    assert ended.status == 0, ended.err
    assert sorted(ended.out.splitlines()) == [
        "[v1] serve/replica_v1.log of n1, 5 lines",
        "[v2] serve/replica_v2.log of n2, 5 lines",
    ]


def test_unknown_names_are_refused_with_the_known_ones(deploy, dashboard):
    for arguments, message in (
        (["--group", "llm"], "no pods of group 'llm'; groups: head"),
        (["--container", "sidecar"], "no container 'sidecar' in these pods; containers: ray-head"),
        (["--deployment", "visoin"], "no Serve deployment 'visoin'; known: router, vision"),
        (
            ["--deployment", "vision", "--group", "head"],
            "--deployment can't be combined with --group, --container or --previous",
        ),
    ):
        ended = deploy("logs", "local-cpu", *arguments)
        assert (ended.status, ended.err) == (2, f"error: {message}\n")

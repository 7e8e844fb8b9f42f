def test_nothing_differs_after_up(deploy, up):
    ended = deploy("diff", "local-cpu")
    assert ended.status == 0
    assert ended.out == "RayService serve-app/serve-app: nothing of the RayService changes\n"


def test_what_differs_is_shown_by_line_with_what_it_would_do_and_nothing_is_changed(deploy, up, changed):
    before = changed()
    ended = deploy("diff", "local-cpu", "--set", "images.tag=0.2.0")
    assert ended.status == 1
    lines = ended.out.splitlines()
    assert lines[:2] == ["--- live RayService/serve-app", "+++ wanted RayService/serve-app"]
    changes = [line.strip() for line in lines[2:] if line[0] in "+-"]
    assert [line.split("image: ")[1] for line in changes] == ["serve-app/cpu:0.1.0", "serve-app/cpu:0.2.0"]
    assert lines[-1].startswith("RayService serve-app/serve-app: a new cluster beside the running one")
    assert "\x1b" not in ended.out, "no colours where no terminal is"
    assert changed() == before


def test_serves_configuration_differs_by_line_not_as_one_text(deploy, up):
    with_one = ("--set", "changes.detection.confidence=0.3")
    assert deploy("up", "local-cpu", *with_one, "--no-wait").status == 0
    ended = deploy("diff", "local-cpu", "--set", "changes.detection.confidence=0.4")
    assert ended.status == 1
    changes = [line.split() for line in ended.out.splitlines()[2:] if line[0] in "+-"]
    assert changes == [["-", "confidence:", "0.3"], ["+", "confidence:", "0.4"]]


def test_before_the_first_up_all_is_new(deploy, kubernetes):
    ended = deploy("diff", "local-cpu")
    assert ended.status == 1
    assert "+++ wanted Namespace/serve-app" in ended.out
    assert "+kind: RayService" in ended.out
    assert kubernetes.object("Namespace", "serve-app") is None


def test_what_would_be_removed_is_shown(deploy, up):
    more = '{"image": "cpu", "cpu": 1, "memory": "2Gi"}'
    groups = [part for role in ("vision", "routers", "llm") for part in ("--set", f"workers.{role}={more}")]
    assert deploy("up", "local-cpu", "--no-wait", *groups).status == 0
    ended = deploy("diff", "local-cpu")
    assert ended.status == 1
    assert "--- live PodDisruptionBudget/serve-app-vision" in ended.out
    assert "-kind: PodDisruptionBudget" in ended.out


def test_whoever_may_only_deploy_sees_what_would_change(deploy, up, deployer):
    ended = deploy("diff", "local-cpu", "--set", "images.tag=0.2.0", kubeconfig=deployer)
    assert ended.status == 1, ended.err
    assert "note: left Namespace serve-app as it is: you may not change it" in ended.out
    assert "+++ wanted RayService/serve-app" in ended.out
    assert "+++ wanted Role/" not in ended.out


def test_a_terminal_gets_colours(deploy, up):
    ended = deploy.on_terminal("diff", "local-cpu", "--set", "images.tag=0.2.0")
    assert ended.status == 1
    assert "\x1b[31m-            image: serve-app/cpu:0.1.0\x1b[0m" in ended.out
    assert "\x1b[32m+            image: serve-app/cpu:0.2.0\x1b[0m" in ended.out

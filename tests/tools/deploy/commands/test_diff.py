def test_nothing_differs_after_up(deploy, up):
    ended = deploy("diff", "local-cpu")
    assert ended.status == 0
    assert ended.out == "RayService serve-app/serve-app: no change to the RayService\n"


def test_before_the_first_up_everything_is_new(deploy, kubernetes):
    ended = deploy("diff", "local-cpu")
    assert ended.status == 1
    assert "+++ new Namespace/serve-app" in ended.out
    assert "+kind: RayService" in ended.out
    assert kubernetes.object("Namespace", "serve-app") is None


def test_a_diff_is_by_line_says_what_up_would_do_and_changes_nothing(deploy, up, changed):
    before = changed()
    ended = deploy("diff", "local-cpu", "--set", "images.tag=0.2.0", "--set", "initializing_timeout_s=700")
    assert ended.status == 1
    lines = ended.out.splitlines()
    assert lines[:2] == ["--- live RayService/serve-app", "+++ new RayService/serve-app"]
    assert [line.split(": ")[1] for line in lines[2:] if line[0] in "+-"] == [
        "600s",
        "700s",
        "serve-app/cpu:0.1.0",
        "serve-app/cpu:0.2.0",
    ]
    assert lines[-1].startswith("RayService serve-app/serve-app: new cluster: it takes over")
    assert "\x1b" not in ended.out, "no colours without a terminal"
    assert changed() == before


def test_the_serve_configuration_is_compared_line_by_line(deploy):
    def confidence(value):
        return ("--set", f"changes.detection.confidence={value}")

    assert deploy("up", "local-cpu", *confidence(0.3), "--no-wait").status == 0
    ended = deploy("diff", "local-cpu", *confidence(0.4))
    changes = [line.split() for line in ended.out.splitlines()[2:] if line[0] in "+-"]
    assert changes == [["-", "confidence:", "0.3"], ["+", "confidence:", "0.4"]]

import pytest

SERVICE = ("RayService", "serve-app", "serve-app")
NEW_CLUSTER = ("--set", "images.tag=0.2.0")
# Serve's configuration alone
IN_PLACE = ("--set", "changes.detection.confidence=0.4")


def active(kubernetes):
    return kubernetes.object(*SERVICE)["status"]["activeServiceStatus"]["rayClusterName"]


def clusters(kubernetes):
    return [one["metadata"]["name"] for one in kubernetes.objects("RayCluster", "serve-app")]


def test_a_change_of_serves_configuration_keeps_the_cluster(deploy, up, kubernetes):
    before = active(kubernetes)
    ended = deploy("upgrade", "local-cpu", *IN_PLACE)
    assert ended.status == 0, ended.out + ended.err
    first = ended.out.splitlines()[0]
    assert "in place: Serve updates its applications in the running cluster (differs: serveConfigV2)" in first
    assert ended.out.index(first) < ended.out.index("RayService/serve-app changed"), "said before it is done"
    assert "confidence: 0.4" in kubernetes.object(*SERVICE)["spec"]["serveConfigV2"]
    assert clusters(kubernetes) == [before]


def test_a_change_of_the_cluster_is_followed_until_the_old_one_is_gone(deploy, up, kubernetes):
    before = active(kubernetes)
    ended = deploy("upgrade", "local-cpu", *NEW_CLUSTER)
    assert ended.status == 0, ended.out + ended.err
    assert "a new cluster beside the running one, which then takes over" in ended.out.splitlines()[0]
    assert "containers[ray-head].image" in ended.out.splitlines()[0]
    for told in ("condition UpgradeInProgress: True", ": pending", f"cluster {before}: old", f"cluster {before}: gone"):
        assert told in ended.out
    assert clusters(kubernetes) == [active(kubernetes)]
    assert active(kubernetes) != before


def test_a_new_cluster_can_be_forced_and_the_next_up_makes_no_other(deploy, up, kubernetes):
    before = active(kubernetes)
    ended = deploy("upgrade", "local-cpu", "--strategy", "new-cluster")
    assert ended.status == 0, ended.out + ended.err
    forced = active(kubernetes)
    assert forced != before
    again = deploy("up", "local-cpu")
    assert again.status == 0
    assert "nothing of the RayService changes" in again.out
    assert clusters(kubernetes) == [forced]


def test_in_place_is_refused_where_it_cannot_be_had(deploy, up, changed):
    before = changed()
    ended = deploy("upgrade", "local-cpu", "--strategy", "in-place", *NEW_CLUSTER)
    assert ended.status == 2
    assert "--strategy in-place: more than Serve's configuration differs" in ended.err
    assert changed() == before


def test_without_upgrades_the_cluster_stays_and_this_is_said(deploy, kubernetes):
    none = ("--set", "upgrade.strategy=none")
    assert deploy("up", "local-cpu", *none).status == 0
    before = active(kubernetes)
    ended = deploy("upgrade", "local-cpu", *none, *NEW_CLUSTER)
    assert "nothing: upgradeStrategy None keeps the running cluster as it is" in ended.out
    assert clusters(kubernetes) == [before]
    refused = deploy("upgrade", "local-cpu", *none, "--strategy", "new-cluster")
    assert refused.status == 2
    assert "--set upgrade.strategy=new-cluster" in refused.err


def test_a_new_cluster_that_fails_leaves_the_old_one_serving_until_a_rollback(deploy, up, kubernetes):
    message = "serve_app.errors.ModelLoadError: yolo_nano: no such file"
    kubernetes.control(trouble="serve_failed", deployment="vision", message=message)
    ended = deploy("upgrade", "local-cpu", *NEW_CLUSTER)
    assert ended.status == 1
    assert "yolo_nano: no such file" in ended.out
    assert "what served before still does" in ended.out
    assert "scripts/deploy rollback returns to the revision before" in ended.out
    status = deploy("status", "local-cpu")
    assert status.status == 0, "it serves, by the old cluster"
    assert "serving, 1 endpoint, upgrading" in status.out
    kubernetes.control(heal=True)
    back = deploy("rollback", "local-cpu")
    assert back.status == 0, back.out
    head = kubernetes.object(*SERVICE)["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert head["image"] == "serve-app/cpu:0.1.0"


def test_what_kuberay_tells_while_it_submits_a_configuration_is_not_taken_for_what_became_of_it(deploy, up, kubernetes):
    """For one turn its status is of the new generation, with what Serve said of the old configuration."""
    kubernetes.control(trouble="serve_failed", deployment="vision", config="confidence: 0.4", message="no such file")
    kubernetes.control(pace=0.5)
    ended = deploy("upgrade", "local-cpu", *IN_PLACE, "--settle", "1.5", "--timeout", "6")
    assert ended.status == 1, ended.out
    assert "serve-app/serve-app doesn't serve what was applied" in ended.out
    assert "application serve_app in" in ended.out
    assert "DEPLOY_FAILED" in ended.out
    kubernetes.control(pace=0.03, heal=True)
    states = [line.split()[2] for line in deploy("history", "local-cpu").out.splitlines()]
    assert states == ["served", "applied"]


def test_a_return_to_what_never_served_says_so(deploy, kubernetes):
    for tag in ("0.2.0", "0.3.0"):
        assert deploy("up", "local-cpu", "--no-wait", "--set", f"images.tag={tag}").status == 0
    ended = deploy("rollback", "local-cpu")
    assert ended.status == 0, ended.out + ended.err
    assert ended.out.splitlines()[0].endswith(", which wasn't seen to serve")


def test_rollback_goes_to_the_revision_before_and_again_further_back(deploy, up, kubernetes):
    for confidence in (0.3, 0.4):
        assert deploy("upgrade", "local-cpu", "--set", f"changes.detection.confidence={confidence}").status == 0

    def confidence():
        text = kubernetes.object(*SERVICE)["spec"]["serveConfigV2"]
        return next(line.split(": ")[1].split()[0] for line in text.splitlines() if " confidence: " in line)

    assert confidence() == "0.4"
    ended = deploy("rollback", "local-cpu")
    assert ended.status == 0, ended.out + ended.err
    assert ended.out.startswith("to revision 2: local-cpu, upgrade of ")
    assert confidence() == "0.3"
    assert deploy("rollback", "local-cpu").status == 0
    assert confidence() == "0.25"
    assert deploy("rollback", "local-cpu", "--to", "3").status == 0
    assert confidence() == "0.4"
    lines = deploy("history", "local-cpu").out.splitlines()
    assert [line.split("local-cpu")[1].strip() for line in lines] == [
        "up",
        "upgrade",
        "upgrade",
        "rollback to 2",
        "rollback to 1",
        "rollback to 3",
    ]
    assert all(" served " in line for line in lines)


def test_a_revision_that_is_not_there_is_named_with_those_that_are(deploy, up):
    ended = deploy("rollback", "local-cpu", "--to", "7")
    assert ended.status == 2
    assert ended.err == "error: serve-app/serve-app has no revision 7; there are 1\n"
    ended = deploy("rollback", "local-cpu")
    assert ended.status == 2
    assert "no complete revision before 1" in ended.err


def test_history_keeps_ten_and_no_secret(deploy, kubernetes):
    for number in range(12):
        assert deploy("up", "local-cpu", "--no-wait", "--set", f"images.tag=t{number}").status == 0
    lines = deploy("history", "local-cpu").out.splitlines()
    assert [int(line.split()[0]) for line in lines] == list(range(3, 13))
    maps = kubernetes.objects("ConfigMap", "serve-app", "serve-app/revision")
    assert len(maps) == 10
    assert kubernetes.objects("Secret", "serve-app", "serve-app/revision") == []


@pytest.mark.parametrize("command", ["up", "upgrade"])
def test_an_upgrade_that_times_out_is_followed_by_the_same_command(deploy, up, kubernetes, command):
    kubernetes.control(trouble="image_pull")
    ended = deploy(command, "local-cpu", *NEW_CLUSTER, "--timeout", "2")
    assert ended.status == 1
    assert "can't pull the image serve-app/cpu:0.2.0" in ended.out
    assert "missing: the switch to the new cluster" in ended.out
    kubernetes.control(heal=True)
    assert deploy(command, "local-cpu", *NEW_CLUSTER).status == 0

SERVICE = ("RayService", "serve-app", "serve-app")
NEW_CLUSTER = ("--set", "images.tag=0.2.0")
IN_PLACE = ("--set", "changes.detection.confidence=0.4")  # Serve's configuration alone


def active(kubernetes):
    return kubernetes.object(*SERVICE)["status"]["activeServiceStatus"]["rayClusterName"]


def clusters(kubernetes):
    return [one["metadata"]["name"] for one in kubernetes.objects("RayCluster", "serve-app")]


def image(kubernetes):
    template = kubernetes.object(*SERVICE)["spec"]["rayClusterConfig"]["headGroupSpec"]["template"]
    return template["spec"]["containers"][0]["image"]


def test_a_change_of_the_serve_configuration_keeps_the_cluster(deploy, up, kubernetes):
    before = active(kubernetes)
    ended = deploy("upgrade", "local-cpu", *IN_PLACE)
    assert ended.status == 0, ended.out + ended.err
    first = ended.out.splitlines()[0]
    assert "in-place update: Serve updates its applications in the running cluster (changed: serveConfigV2)" in first
    assert ended.out.index(first) < ended.out.index("RayService/serve-app changed"), "printed before it is done"
    assert "confidence: 0.4" in kubernetes.object(*SERVICE)["spec"]["serveConfigV2"]
    assert clusters(kubernetes) == [before]


def test_a_change_of_the_cluster_is_followed_until_the_old_one_is_gone(deploy, up, kubernetes):
    before = active(kubernetes)
    ended = deploy("upgrade", "local-cpu", *NEW_CLUSTER)
    assert ended.status == 0, ended.out + ended.err
    assert "new cluster: it takes over from the running one once it serves" in ended.out.splitlines()[0]
    assert "containers[ray-head].image" in ended.out.splitlines()[0]
    for part in ("condition UpgradeInProgress: True", ": pending", f"cluster {before}: old", f"cluster {before}: gone"):
        assert part in ended.out
    assert clusters(kubernetes) == [active(kubernetes)]
    assert active(kubernetes) != before


def test_a_new_cluster_can_be_forced_once(deploy, up, kubernetes):
    before = active(kubernetes)
    ended = deploy("upgrade", "local-cpu", "--strategy", "new-cluster")
    assert ended.status == 0, ended.out + ended.err
    forced = active(kubernetes)
    assert forced != before
    again = deploy("up", "local-cpu")
    assert again.status == 0
    assert "no change to the RayService" in again.out
    assert clusters(kubernetes) == [forced]


def test_a_strategy_that_does_not_fit_the_change_is_refused(deploy, up, kubernetes, changed):
    before = changed()
    ended = deploy("upgrade", "local-cpu", "--strategy", "in-place", *NEW_CLUSTER)
    assert ended.status == 2
    assert "--strategy in-place: this change needs a new cluster" in ended.err
    assert changed() == before
    none = ("--set", "upgrade.strategy=none")
    cluster = active(kubernetes)
    ended = deploy("upgrade", "local-cpu", *none, *NEW_CLUSTER)
    assert "no effect: upgrade.strategy none keeps the running cluster unchanged" in ended.out
    assert clusters(kubernetes) == [cluster]
    refused = deploy("upgrade", "local-cpu", *none, "--strategy", "new-cluster")
    assert refused.status == 2
    assert "add --set upgrade.strategy=new-cluster" in refused.err


def test_a_failed_upgrade_leaves_the_old_cluster_serving_until_a_rollback(deploy, up, kubernetes):
    message = "serve_app.errors.ModelLoadError: yolo_nano: no such file"
    kubernetes.control(trouble="serve_failed", deployment="vision", message=message)
    ended = deploy("upgrade", "local-cpu", *NEW_CLUSTER)
    assert ended.status == 1
    assert "yolo_nano: no such file" in ended.out
    assert "the previous revision is still serving" in ended.out
    status = deploy("status", "local-cpu")
    assert status.status == 0
    assert "serving, 1 endpoint, upgrading" in status.out
    kubernetes.control(heal=True)
    back = deploy("rollback", "local-cpu")
    assert back.status == 0, back.out
    assert image(kubernetes) == "serve-app/cpu:0.1.0"


def test_an_upgrade_that_timed_out_is_continued_by_the_same_command(deploy, up, kubernetes):
    kubernetes.control(trouble="image_pull")
    for command in ("upgrade", "up"):
        ended = deploy(command, "local-cpu", *NEW_CLUSTER, "--timeout", "0.1")
        assert ended.status == 1
        assert "serving, 1 endpoint, u" in ended.out
    kubernetes.control(heal=True)
    assert deploy("upgrade", "local-cpu", *NEW_CLUSTER).status == 0
    assert image(kubernetes) == "serve-app/cpu:0.2.0"


def test_a_status_from_before_the_change_does_not_end_the_wait(deploy, up, kubernetes):
    """For one turn KubeRay reports the new generation with the applications of the old configuration."""
    kubernetes.control(trouble="serve_failed", deployment="vision", config="confidence: 0.4", message="no such file")
    kubernetes.control(pace=0.2)
    ended = deploy("upgrade", "local-cpu", *IN_PLACE, "--settle", "1")
    assert ended.status == 1, ended.out
    assert "DEPLOY_FAILED: no such file" in ended.out
    kubernetes.control(pace=0.02, heal=True)
    states = [line.split()[2] for line in deploy("history", "local-cpu").out.splitlines()]
    assert states == ["served", "applied"]


def test_rollback_goes_back_one_revision_and_then_further(deploy, up, kubernetes):
    def confidence():
        text = kubernetes.object(*SERVICE)["spec"]["serveConfigV2"]
        return next(line.split(": ")[1].split()[0] for line in text.splitlines() if " confidence: " in line)

    for value in (0.3, 0.4):
        assert deploy("upgrade", "local-cpu", "--set", f"changes.detection.confidence={value}").status == 0
    assert confidence() == "0.4"
    ended = deploy("rollback", "local-cpu")
    assert ended.status == 0, ended.out + ended.err
    assert ended.out.startswith("rolling back to revision 2: local-cpu, upgrade, ")
    assert confidence() == "0.3"
    assert deploy("rollback", "local-cpu").status == 0
    assert confidence() == "0.25"
    assert deploy("rollback", "local-cpu", "--to", "3").status == 0
    assert confidence() == "0.4"
    lines = deploy("history", "local-cpu").out.splitlines()
    whys = ["up", "upgrade", "upgrade", "rollback to 2", "rollback to 1", "rollback to 3"]
    assert [line.split("local-cpu")[1].strip() for line in lines] == whys
    assert all(" served " in line for line in lines)


def test_a_rollback_names_the_revisions_that_exist(deploy):
    assert deploy("history", "local-cpu").out == "serve-app/serve-app has no revisions yet\n"
    assert deploy("up", "local-cpu", "--no-wait", "--set", "images.tag=0.2.0").status == 0
    ended = deploy("rollback", "local-cpu", "--to", "7")
    assert (ended.status, ended.err) == (2, "error: serve-app/serve-app has no revision 7; known: 1\n")
    ended = deploy("rollback", "local-cpu")
    assert ended.status == 2
    assert "no complete revision before 1" in ended.err
    assert deploy("up", "local-cpu", "--no-wait", "--set", "images.tag=0.3.0").status == 0
    ended = deploy("rollback", "local-cpu")
    assert ended.status == 0, ended.out + ended.err
    assert ended.out.splitlines()[0].endswith("; it was never seen serving")

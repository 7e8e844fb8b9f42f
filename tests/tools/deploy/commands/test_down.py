def ours(kubernetes, namespace="serve-app"):
    kinds = (
        "RayService",
        "RayCluster",
        "Pod",
        "Service",
        "ServiceAccount",
        "Role",
        "NetworkPolicy",
        "PodDisruptionBudget",
    )
    return [f"{kind}/{one['metadata']['name']}" for kind in kinds for one in kubernetes.objects(kind, namespace)]


def test_down_takes_all_away_the_service_first_and_its_namespace_last(deploy, up, kubernetes, changed):
    before = len(changed())
    ended = deploy("down", "local-cpu", "--yes")
    assert ended.status == 0, ended.out + ended.err
    deleted = [path.rsplit("/", 2)[-2:] for method, path in changed()[before:] if method == "DELETE"]
    assert deleted[0] == ["rayservices", "serve-app"]
    assert deleted[-1] == ["namespaces", "serve-app"]
    assert deleted.index(["networkpolicies", "serve-app-ray"]) < deleted.index(["roles", "serve-app-viewer"])
    assert ended.out.index("pods of head in") < ended.out.index("PodDisruptionBudget/serve-app-head deleted")
    assert "serve-app/serve-app is gone" in ended.out
    assert "scripts/cleanup" in ended.out
    assert kubernetes.object("Namespace", "serve-app") is None
    assert deploy("up", "local-cpu").status == 0, "and it can come again"


def test_without_a_terminal_nobody_is_asked_and_nothing_goes_without_yes(deploy, up, kubernetes):
    ended = deploy("down", "local-cpu")
    assert ended.status == 2
    assert "without a terminal say so with --yes" in ended.err
    assert kubernetes.object("RayService", "serve-app", "serve-app")


def test_a_namespace_can_be_kept_with_what_others_have_in_it(deploy, up, kubernetes):
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}}
    kubernetes.request("POST", "/api/v1/namespaces/serve-app/configmaps", theirs)
    ended = deploy("down", "local-cpu", "--yes", "--keep-namespace")
    assert ended.status == 0, ended.out
    assert "namespace serve-app (free by itself)" in ended.out
    assert kubernetes.object("ConfigMap", "theirs", "serve-app")
    assert [one for one in ours(kubernetes) if one != "ServiceAccount/default"] == []


def post(kubernetes, path, manifest):
    status, body = kubernetes.request("POST", f"{path.format('/namespaces/serve-app')}", manifest)
    assert status == 201, body


POD = {"containers": [{"name": "main", "image": "other:1"}]}
WORK = {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": POD}}
JOB = {"template": {"spec": POD | {"restartPolicy": "Never"}}}
CRON = {"schedule": "0 3 * * *", "jobTemplate": {"spec": JOB}}
THEIRS = [
    ("/api/v1{}/secrets", {"apiVersion": "v1", "kind": "Secret", "data": {"password": "eA=="}}),
    ("/api/v1{}/configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}),
    ("/api/v1{}/services", {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]}}),
    ("/apis/batch/v1{}/jobs", {"apiVersion": "batch/v1", "kind": "Job", "spec": JOB}),
    ("/apis/batch/v1{}/cronjobs", {"apiVersion": "batch/v1", "kind": "CronJob", "spec": CRON}),
    ("/apis/apps/v1{}/daemonsets", {"apiVersion": "apps/v1", "kind": "DaemonSet", "spec": WORK}),
    ("/apis/apps/v1{}/deployments", {"apiVersion": "apps/v1", "kind": "Deployment", "spec": WORK}),
    ("/apis/apps/v1{}/statefulsets", {"apiVersion": "apps/v1", "kind": "StatefulSet", "spec": WORK}),
]


def test_a_namespace_that_up_made_goes_only_once_nobody_has_anything_in_it(deploy, up, kubernetes):
    """Of each kind one, by names that are like those of KubeRay's clusters."""
    root = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"}}
    post(kubernetes, "/api/v1{}/configmaps", root)
    for path, manifest in THEIRS:
        post(kubernetes, path, manifest | {"metadata": {"name": "serve-app-redis"}})
    assert deploy("up", "local-cpu", "--set", "images.tag=0.2.0").status == 0, "and it is still known who made it"
    for path, manifest in THEIRS:
        ended = deploy("down", "local-cpu", "--yes")
        assert ended.status == 0, ended.err
        assert "Namespace/serve-app stays: it also holds " in ended.out
        assert f"{manifest['kind']}/serve-app-redis" in ended.out or ", …" in ended.out
        assert "to delete: Namespace" not in ended.out
        where = path.format("/namespaces/serve-app")
        assert kubernetes.request("DELETE", f"{where}/serve-app-redis")[0] == 200, "it was still there"
    ended = deploy("down", "local-cpu", "--yes")
    assert ended.status == 0
    assert "to delete: Namespace/serve-app" in ended.out
    assert kubernetes.object("Namespace", "serve-app") is None


def test_a_namespace_that_was_there_before_up_stays_with_its_secrets_and_up_works_again(deploy, kubernetes, secrets):
    """As scripts/install makes them."""
    secrets("yolo-gpu")
    assert deploy("up", "yolo-gpu").status == 0
    assert deploy("up", "yolo-gpu", "--set", "images.tag=0.2.0").status == 0
    ended = deploy("down", "yolo-gpu", "--yes")
    assert ended.status == 0, ended.out + ended.err
    assert "Namespace/serve-app stays: it wasn't made by scripts/deploy" in ended.out
    assert "to delete: Namespace" not in ended.out
    assert kubernetes.object("Secret", "serve-app-keys", "serve-app")
    assert kubernetes.object("RayService", "serve-app", "serve-app") is None
    assert deploy("up", "yolo-gpu").status == 0


def test_whoever_keeps_the_namespace_needs_no_right_to_it(deploy, up, kubernetes):
    rules = [{"verbs": ["*"], "namespaces": ["serve-app"]}]
    kubernetes.control(token={"token": "owner", "user": "olga", "rules": rules})
    theirs = kubernetes.kubeconfig_for("owner")
    ended = deploy("down", "local-cpu", "--yes", "--keep-namespace", kubeconfig=theirs)
    assert ended.status == 0, ended.out + ended.err
    assert "to delete: RayService/serve-app" in ended.out
    assert "Namespace/serve-app" not in ended.out
    assert kubernetes.object("Namespace", "serve-app")


def test_without_the_right_to_delete_the_namespace_it_is_said_how_to_keep_it(deploy, up, kubernetes):
    rules = [{"verbs": ["*"], "namespaces": ["serve-app"]}, {"verbs": ["get", "list"]}]
    kubernetes.control(token={"token": "owner", "user": "olga", "rules": rules})
    ended = deploy("down", "local-cpu", "--yes", kubeconfig=kubernetes.kubeconfig_for("owner"))
    assert ended.status == 2
    assert "you may not delete namespaces; nothing was deleted" in ended.err
    assert "--keep-namespace leaves the namespace" in ended.err
    assert kubernetes.object("RayService", "serve-app", "serve-app")


def test_a_namespace_with_somebody_elses_work_stays(deploy, up, kubernetes):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "notebook"},
        "spec": {"containers": [{"name": "main", "image": "jupyter:1"}]},
    }
    status, _ = kubernetes.request("POST", "/api/v1/namespaces/serve-app/pods", pod)
    assert status == 201
    ended = deploy("down", "local-cpu", "--yes")
    assert ended.status == 0
    assert "Namespace/serve-app stays: it also holds Pod/notebook" in ended.out
    assert kubernetes.object("Pod", "notebook", "serve-app")


def test_what_remains_and_costs_money_is_named(deploy, up, kubernetes):
    balancer = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "front"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    }
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "50Gi"}}},
    }
    for plural, one in (("services", balancer), ("persistentvolumeclaims", volume)):
        status, _ = kubernetes.request("POST", f"/api/v1/namespaces/serve-app/{plural}", one)
        assert status == 201
    ended = deploy("down", "local-cpu", "--yes")
    assert ended.status == 0
    assert "load balancer of Service front" in ended.out
    assert "volume of PersistentVolumeClaim data (50Gi)" in ended.out
    assert "Namespace/serve-app stays: it also holds PersistentVolumeClaim/data" in ended.out


def test_what_holds_is_named_at_a_timeout_and_a_second_run_finishes(deploy, up, kubernetes):
    (cluster,) = kubernetes.objects("RayCluster", "serve-app")
    path = f"/apis/ray.io/v1/namespaces/serve-app/rayclusters/{cluster['metadata']['name']}"
    merge = "application/merge-patch+json"
    held = {"metadata": {"finalizers": ["example.com/hold"]}}
    assert kubernetes.request("PATCH", path, held, media=merge)[0] == 200
    ended = deploy("down", "local-cpu", "--yes", "--timeout", "2")
    assert ended.status == 1
    assert "isn't gone after 2 s; run the same command again" in ended.out
    assert f"cluster {cluster['metadata']['name']}: is still there" in ended.out
    assert kubernetes.object("Role", "serve-app-viewer", "serve-app"), "what pods refer to stays until they are gone"
    kubernetes.request("PATCH", path, {"metadata": {"finalizers": None}}, media=merge)
    again = deploy("down", "local-cpu", "--yes")
    assert again.status == 0, again.out
    assert kubernetes.object("Namespace", "serve-app") is None


def test_down_of_nothing_is_done(deploy):
    ended = deploy("down", "local-cpu", "--yes")
    assert ended.status == 0
    assert "serve-app/serve-app is gone" in ended.out


def test_without_the_right_to_delete_nothing_is_deleted(deploy, up, kubernetes, changed):
    kubernetes.control(token={"token": "reader", "user": "jane", "rules": [{"verbs": ["get", "list", "watch"]}]})
    before = changed()
    ended = deploy("down", "local-cpu", "--yes", kubeconfig=kubernetes.kubeconfig_for("reader"))
    assert ended.status == 2
    assert "you may not delete " in ended.err
    assert "rayservices" in ended.err
    assert changed() == before


def test_down_works_after_kuberay_is_gone(deploy, kubernetes):
    """Nothing of it can be there then; the rest is taken away."""
    kubernetes.control(reset={"crds": False})
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "serve-app"}}
    kubernetes.request("POST", "/api/v1/namespaces", namespace)
    ended = deploy("down", "local-cpu", "--yes")
    assert ended.status == 0
    assert "Namespace/serve-app stays: it wasn't made by scripts/deploy" in ended.out


def test_on_a_terminal_a_person_is_asked(deploy, up, kubernetes):
    ended = deploy.on_terminal("down", "local-cpu", answer="n\n")
    assert ended.status == 1
    assert "to delete: RayService/serve-app" in ended.out
    assert "objects of serve-app/serve-app? [y/N]" in ended.out
    assert "nothing was deleted" in ended.out
    assert kubernetes.object("RayService", "serve-app", "serve-app")
    ended = deploy.on_terminal("down", "local-cpu", answer="\x04")
    assert (ended.status, "Traceback" in ended.out) == (1, False), "Ctrl-D is no yes"
    assert "nothing was deleted" in ended.out
    assert kubernetes.object("RayService", "serve-app", "serve-app")
    assert deploy.on_terminal("down", "local-cpu", answer="y\n").status == 0
    assert kubernetes.object("RayService", "serve-app", "serve-app") is None

import io

NAMESPACE = "/api/v1/namespaces/serve-app"
SERVICE = ("RayService", "serve-app", "serve-app")
POD = {"containers": [{"name": "main", "image": "other:1"}]}
WORKLOAD = {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": POD}}
JOB = {"template": {"spec": POD | {"restartPolicy": "Never"}}}
VOLUME = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "50Gi"}}}
THEIRS = [
    ("v1", "Pod", "pods", {"spec": POD}),
    ("v1", "Secret", "secrets", {"data": {"password": "eA=="}}),
    ("v1", "ConfigMap", "configmaps", {"data": {"a": "b"}}),
    ("v1", "Service", "services", {"spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}),
    ("v1", "PersistentVolumeClaim", "persistentvolumeclaims", {"spec": VOLUME}),
    ("batch/v1", "Job", "jobs", {"spec": JOB}),
    ("batch/v1", "CronJob", "cronjobs", {"spec": {"schedule": "0 3 * * *", "jobTemplate": {"spec": JOB}}}),
    ("apps/v1", "DaemonSet", "daemonsets", {"spec": WORKLOAD}),
    ("apps/v1", "Deployment", "deployments", {"spec": WORKLOAD}),
    ("apps/v1", "StatefulSet", "statefulsets", {"spec": WORKLOAD}),
]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def path_of(version, plural):
    return f"{'/apis/' if '/' in version else '/api/'}{version}/namespaces/serve-app/{plural}"


def test_down_deletes_the_service_first_and_its_namespace_last(deploy, up, kubernetes, changed):
    before = len(changed())
    ended = deploy("down", "local-cpu", "--yes")
    assert ended.status == 0, ended.out + ended.err
    deleted = [path.rsplit("/", 2)[-2:] for method, path in changed()[before:] if method == "DELETE"]
    assert deleted[0] == ["rayservices", "serve-app"]
    assert deleted[-1] == ["namespaces", "serve-app"]
    assert deleted.index(["networkpolicies", "serve-app-ray"]) < deleted.index(["roles", "serve-app-viewer"])
    assert ended.out.index("pods of head in") < ended.out.index("PodDisruptionBudget/serve-app-head deleted")
    assert "serve-app/serve-app is deleted" in ended.out
    assert "also cost money: scripts/cleanup deletes them" in ended.out
    assert kubernetes.object("Namespace", "serve-app") is None
    again = deploy("down", "local-cpu", "--yes")
    assert again.status == 0
    assert "serve-app/serve-app is deleted" in again.out
    assert deploy("up", "local-cpu").status == 0


def test_nothing_is_deleted_without_confirmation(deploy, up, kubernetes, monkeypatch):
    ended = deploy("down", "local-cpu")
    assert ended.status == 2
    assert "objects of serve-app/serve-app; pass --yes to confirm" in ended.err
    for answer in ("n\n", "\n", ""):  # the last is Ctrl-D
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        ended = deploy("down", "local-cpu")
        assert ended.status == 1
        assert "to delete: RayService/serve-app" in ended.out
        assert "objects of serve-app/serve-app? [y/N]" in ended.out
        assert "nothing was deleted" in ended.out
        assert kubernetes.object(*SERVICE)
    assert deploy.on_terminal("down", "local-cpu", answer="y\n").status == 0
    assert kubernetes.object(*SERVICE) is None


def test_a_namespace_with_objects_of_others_is_kept_and_its_costs_are_listed(deploy, up, kubernetes):
    """One object of each kind, with names similar to those of KubeRay's clusters."""
    for version, kind, plural, content in THEIRS:
        manifest = {"apiVersion": version, "kind": kind, "metadata": {"name": "serve-app-redis"}} | content
        kubernetes.create(path_of(version, plural), manifest)
    assert deploy("up", "local-cpu", "--no-wait", "--set", "images.tag=0.2.0").status == 0, "keeps the annotation"
    kept = deploy("down", "local-cpu", "--yes")
    assert kept.status == 0, kept.err
    assert "load balancer of Service serve-app-redis" in kept.out
    assert "volume of PersistentVolumeClaim serve-app-redis (50Gi)" in kept.out
    for version, kind, plural, _ in THEIRS:
        ended = deploy("down", "local-cpu", "--yes")
        assert ended.status == 0, ended.err
        assert "Namespace/serve-app is kept: it also contains " in ended.out
        assert f"{kind}/serve-app-redis" in ended.out or ", …" in ended.out
        assert "to delete: Namespace" not in ended.out
        path = f"{path_of(version, plural)}/serve-app-redis"
        assert kubernetes.request("DELETE", f"{path}?gracePeriodSeconds=0")[0] == 200, "it still existed"
    ended = deploy("down", "local-cpu", "--yes")
    assert ended.status == 0
    assert "to delete: Namespace/serve-app" in ended.out
    assert kubernetes.object("Namespace", "serve-app") is None


def test_a_namespace_that_up_did_not_create_is_kept(deploy, kubernetes, secrets):
    """As scripts/install creates it."""
    assert deploy("up", "yolo-gpu").status == 0
    assert deploy("up", "yolo-gpu", "--no-wait", "--set", "images.tag=0.2.0").status == 0
    ended = deploy("down", "yolo-gpu", "--yes")
    assert ended.status == 0, ended.out + ended.err
    assert "Namespace/serve-app is kept: it wasn't created by scripts/deploy" in ended.out
    assert "to delete: Namespace" not in ended.out
    assert kubernetes.object("Secret", "serve-app-keys", "serve-app")
    assert kubernetes.object(*SERVICE) is None


def test_down_works_without_kuberay(deploy, kubernetes, namespace):
    kubernetes.control(reset={"crds": False})
    assert deploy("down", "local-cpu", "--yes").status == 0


def test_permissions_are_checked_before_anything_is_deleted(deploy, up, kubernetes, changed):
    before = changed()
    reader = kubernetes.user("reader", {"verbs": ["get", "list", "watch"]})
    ended = deploy("down", "local-cpu", "--yes", kubeconfig=reader)
    assert ended.status == 2
    assert "you may not delete " in ended.err
    assert "rayservices" in ended.err
    own = {"verbs": ["*"], "namespaces": ["serve-app"]}
    owner = kubernetes.user("owner", own, {"verbs": ["get", "list"]})
    ended = deploy("down", "local-cpu", "--yes", kubeconfig=owner)
    assert ended.status == 2
    message = "you may not delete namespaces; nothing was deleted; use --keep-namespace to keep the namespace\n"
    assert ended.err == f"error: {message}"
    assert changed() == before
    ended = deploy("down", "local-cpu", "--yes", "--keep-namespace", kubeconfig=kubernetes.user("tenant", own))
    assert ended.status == 0, ended.out + ended.err
    assert "to delete: RayService/serve-app" in ended.out
    assert "Namespace/serve-app" not in ended.out
    assert "namespace serve-app (no cost by itself)" in ended.out
    assert kubernetes.object("Namespace", "serve-app")


def test_a_timeout_names_what_remains_and_a_second_run_finishes(deploy, up, kubernetes):
    (cluster,) = kubernetes.objects("RayCluster", "serve-app")
    path = f"/apis/ray.io/v1/namespaces/serve-app/rayclusters/{cluster['metadata']['name']}"
    kubernetes.merge(path, {"metadata": {"finalizers": ["example.com/hold"]}})
    ended = deploy("down", "local-cpu", "--yes", "--timeout", "0.5")
    assert ended.status == 1
    assert "isn't deleted after 0.5 s; run the same command again to continue" in ended.out
    assert f"cluster {cluster['metadata']['name']}: still exists" in ended.out
    assert kubernetes.object("Role", "serve-app-viewer", "serve-app"), "kept until the pods are gone"
    kubernetes.merge(path, {"metadata": {"finalizers": None}})
    again = deploy("down", "local-cpu", "--yes")
    assert again.status == 0, again.out
    assert kubernetes.object("Namespace", "serve-app") is None

"""What can't be done is said with its reason and its remedy, before anything has changed."""

import re
from pathlib import Path

import pytest

UNCHANGING = ("diff", "status", "history", "logs")
CHANGING = ("up", "upgrade", "rollback", "down")


def refused(ended, *parts):
    assert ended.status == 2, ended.out + ended.err
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1, "one line"
    for part in parts:
        assert part in ended.err


@pytest.mark.parametrize("command", UNCHANGING + CHANGING + ("port-forward",))
def test_every_command_needs_a_kubeconfig(deploy, tmp_path, command):
    more = ["--yes"] if command == "down" else []
    ended = deploy(command, "local-cpu", *more, kubeconfig=tmp_path / "nothing")
    refused(ended, "no kubeconfig at", "aws eks update-kubeconfig")


@pytest.mark.parametrize("command", UNCHANGING + CHANGING + ("port-forward",))
def test_every_command_says_that_the_cluster_cannot_be_reached(deploy, kubernetes, command):
    more = ["--yes"] if command == "down" else []
    nowhere = kubernetes.kubeconfig_for("admin", server="https://127.0.0.1:1")
    ended = deploy(command, "local-cpu", *more, kubeconfig=nowhere)
    refused(ended, "can't reach https://127.0.0.1:1: ", "Connection refused", "is 'test' the context you mean")


@pytest.mark.parametrize("command", UNCHANGING + CHANGING + ("port-forward",))
def test_every_command_says_that_credentials_are_not_known(deploy, kubernetes, command):
    more = ["--yes"] if command == "down" else []
    ended = deploy(command, "local-cpu", *more, kubeconfig=kubernetes.kubeconfig_for("expired"))
    refused(ended, "doesn't know the credentials of context 'test'", "aws sso login")


@pytest.mark.parametrize("command", ["render", *UNCHANGING, *CHANGING, "port-forward"])
def test_every_command_knows_no_unknown_scenario(deploy, command):
    refused(deploy(command, "yolo-gpus"), "no scenario 'yolo-gpus'", "did you mean 'yolo-gpu'?")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("images.tga=1", "did you mean 'tag'?"),
        ("images.tag", "write key=value"),
        ("initializing_timeout_s=soon", "initializing_timeout_s"),
        ("namespace=Not_a_name", "namespace"),
    ],
)
def test_an_override_that_means_nothing_is_refused(deploy, changed, override, told):
    refused(deploy("up", "local-cpu", "--set", override), told)
    assert changed() == []


def test_an_unknown_context_is_named_with_those_there_are(deploy):
    refused(deploy("status", "local-cpu", "--context", "prod"), "no context 'prod'; there are test")


def test_a_certificate_that_is_not_the_clusters_is_refused(deploy, kubernetes, tmp_path):
    content = Path(kubernetes.kubeconfig).read_text()
    path = tmp_path / "other"
    path.write_text(re.sub(r"certificate-authority-data: .*", "insecure-skip-tls-verify: false", content))
    refused(
        deploy("status", "local-cpu", kubeconfig=path), "can't reach https://127.0.0.1:", "certificate verify failed"
    )


@pytest.mark.parametrize("command", ["up", "diff"])
def test_a_cluster_without_kuberay_says_how_it_is_installed(deploy, kubernetes, changed, command):
    kubernetes.control(reset={"crds": False})
    refused(deploy(command, "local-cpu"), "KubeRay isn't installed")
    assert changed() == []


def test_a_cluster_without_an_operator_says_that_nothing_would_happen(deploy, kubernetes, changed):
    kubernetes.control(operator={"version": None})
    refused(deploy("up", "local-cpu"), "no KubeRay operator runs in this cluster", "helm install kuberay-operator")
    assert changed() == []


@pytest.mark.parametrize("version", ["v1.3.0", "v1.6.2", "v2.0.0"])
def test_an_operator_of_another_version_is_refused_with_the_way_to_another(deploy, kubernetes, changed, version):
    kubernetes.control(operator={"version": version})
    refused(
        deploy("up", "local-cpu"),
        f"kuberay-system/kuberay-operator is version {version[1:]} (quay.io/kuberay/operator:{version})",
        "at least 1.7 and below 2",
        "helm upgrade",
    )
    assert changed() == []


@pytest.mark.parametrize("version", ["v1.7.3", "v1.12.0"])
def test_a_newer_operator_of_the_same_line_is_taken(deploy, kubernetes, version):
    kubernetes.control(operator={"version": version})
    assert deploy("up", "local-cpu", "--no-wait").status == 0


def test_an_operator_that_is_not_ready_is_waited_for_by_whoever_starts_it(deploy, kubernetes, changed):
    path = "/apis/apps/v1/namespaces/kuberay-system/deployments/kuberay-operator/status"
    status, _ = kubernetes.request(
        "PATCH", path, {"status": {"readyReplicas": 0}}, media="application/merge-patch+json"
    )
    assert status == 200
    refused(deploy("up", "local-cpu"), "kuberay-system/kuberay-operator isn't ready", "kubectl describe")
    assert changed() == [("PATCH", path)]


def test_an_image_that_tells_no_version_is_noted(deploy, kubernetes):
    path = "/apis/apps/v1/namespaces/kuberay-system/deployments/kuberay-operator"
    image = {"containers": [{"name": "kuberay-operator", "image": "mirror.example/kuberay@sha256:" + "0" * 64}]}
    body = {"spec": {"template": {"spec": image}}}
    status, _ = kubernetes.request("PATCH", path, body, media="application/strategic-merge-patch+json")
    assert status == 200
    ended = deploy("up", "local-cpu", "--no-wait")
    assert ended.status == 0, ended.err
    assert "its version can't be told from the image mirror.example/kuberay@sha256:" in ended.out


READ_ALL = {"verbs": ["get", "list", "watch"]}


def test_every_right_that_lacks_is_named_before_anything_is_changed(deploy, kubernetes, changed):
    kubernetes.control(token={"token": "reader", "user": "jane", "rules": [READ_ALL]})
    ended = deploy("up", "local-cpu", kubeconfig=kubernetes.kubeconfig_for("reader"))
    refused(
        ended,
        "context 'test' has no right to ",
        "create, patch namespaces;",
        "create, patch rayservices.ray.io in serve-app",
        "create, patch networkpolicies.networking.k8s.io in serve-app",
        "create, delete, patch configmaps in serve-app",
        "nothing was changed",
    )
    assert changed() == []


def test_a_right_that_the_cluster_refuses_only_at_the_trial_changes_nothing(deploy, kubernetes, changed):
    """As a webhook does, or RBAC when a role would give more than its maker has."""
    kubernetes.control(
        failing={"times": 1, "code": 403, "reason": "Forbidden", "message": "roles are escalating", "path": "/roles/"}
    )
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "serve-app"}}
    kubernetes.request("POST", "/api/v1/namespaces", namespace)
    ended = deploy("up", "local-cpu")
    refused(ended, "roles are escalating")
    assert changed() == [("POST", "/api/v1/namespaces")]


def test_whoever_may_only_deploy_leaves_what_only_an_administrator_may_change(deploy, up, deployer):
    ended = deploy("upgrade", "local-cpu", "--set", "images.tag=0.2.0", kubeconfig=deployer)
    assert ended.status == 0, ended.out + ended.err
    assert "note: left Namespace serve-app as it is: you may not change it" in ended.out
    assert "note: left Role serve-app-deployer as it is: you may not change it" in ended.out
    assert "the KubeRay operator couldn't be checked" in ended.out
    assert deploy("history", "local-cpu", kubeconfig=deployer).out.count("served") == 2
    assert deploy("status", "local-cpu", kubeconfig=deployer).status == 0


def test_a_deployer_cannot_change_a_role(deploy, up, kubernetes):
    rules = [{"verbs": ["*"], "groups": ["ray.io", "", "policy", "networking.k8s.io"], "namespaces": ["serve-app"]}]
    kubernetes.control(token={"token": "deployer", "user": "dora", "rules": rules})
    ended = deploy("up", "local-cpu", "--set", "name=other", kubeconfig=kubernetes.kubeconfig_for("deployer"))
    refused(ended, "create, get, patch roles.rbac.authorization.k8s.io in serve-app")


def test_secrets_that_a_scenario_refers_to_must_be_there(deploy, kubernetes, changed):
    ended = deploy("up", "yolo-gpu")
    refused(
        ended,
        "namespace serve-app lacks Secret serve-app-keys with the key admin",
        "kubectl create namespace serve-app, then ",
        "kubectl create secret generic serve-app-keys -n serve-app --from-file=admin=FILE",
        "nothing was changed",
    )
    assert changed() == []


def test_a_secret_without_the_key_is_not_enough(deploy, kubernetes, secrets):
    secrets("yolo-gpu")
    path = "/api/v1/namespaces/serve-app/secrets/serve-app-keys"
    kubernetes.request("PATCH", path, {"data": {"admin": None, "b": "eA=="}}, media="application/merge-patch+json")
    ended = deploy("up", "yolo-gpu")
    refused(ended, "lacks the key admin of Secret serve-app-keys")
    assert "eA==" not in ended.err + ended.out


def test_a_namespace_that_is_being_deleted_is_waited_for_by_its_deleter(deploy, kubernetes, changed):
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "serve-app"}}
    kubernetes.request("POST", "/api/v1/namespaces", namespace)
    held = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    kubernetes.request("POST", "/api/v1/namespaces/serve-app/configmaps", held)
    kubernetes.request("DELETE", "/api/v1/namespaces/serve-app")
    before = changed()
    ended = deploy("up", "local-cpu")
    refused(ended, "namespace serve-app is being deleted; wait until it is gone")
    assert changed() == before


def test_crds_that_are_older_than_the_manifests_are_told(deploy, kubernetes, changed):
    kubernetes.control(
        failing={
            "times": 1,
            "code": 500,
            "message": "failed to create typed patch object: .spec.upgradeStrategy: field not declared in schema",
            "path": "/rayservices/serve-app",
        }
    )
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "serve-app"}}
    kubernetes.request("POST", "/api/v1/namespaces", namespace)
    ended = deploy("up", "local-cpu")
    assert ended.status == 2
    assert "field not declared in schema; are the CRDs older than these manifests?" in ended.err


def test_upgrade_and_rollback_need_something_to_begin_with(deploy, changed):
    refused(deploy("upgrade", "local-cpu"), "RayService serve-app/serve-app isn't there: scripts/deploy up")
    refused(deploy("rollback", "local-cpu"), "serve-app/serve-app has no history")
    assert changed() == []


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("fly", "local-cpu"),
        ("up",),
        ("up", "local-cpu", "--timeout", "0"),
        ("up", "local-cpu", "--timeout", "-1"),
        ("upgrade", "local-cpu", "--strategy", "sideways"),
        ("render", "local-cpu", "--write", "--output", "x"),
        ("rollback", "local-cpu", "--to", "first"),
        ("port-forward", "local-cpu", "--http", "99999"),
        ("port-forward", "local-cpu", "--grpc", "-1"),
    ],
)
def test_a_command_line_that_means_nothing_is_refused_with_the_usage(deploy, arguments):
    ended = deploy(*(arguments or ("",)))
    assert ended.status == 2
    assert ended.err.startswith("usage: ")

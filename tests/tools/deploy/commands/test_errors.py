"""What can't be done is refused with the reason and the fix, before anything has changed."""

import re
from pathlib import Path

COMMANDS = ("diff", "status", "history", "logs", "up", "upgrade", "rollback", "down", "port-forward")
NAMESPACE = "/api/v1/namespaces/serve-app"
OPERATOR = "/apis/apps/v1/namespaces/kuberay-system/deployments/kuberay-operator"


def assert_refused(ended, *parts):
    assert ended.status == 2, ended.out + ended.err
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1, "one line"
    for part in parts:
        assert part in ended.err


def test_every_command_reports_a_cluster_that_it_cannot_use(deploy, kubernetes, tmp_path):
    cases = [
        (tmp_path / "nothing", ["no kubeconfig at", "aws eks update-kubeconfig"]),
        (
            kubernetes.kubeconfig_for("unreachable", server="https://127.0.0.1:1"),
            ["can't reach https://127.0.0.1:1: ", "Connection refused", "is 'test' the right context"],
        ),
        (kubernetes.kubeconfig_for("expired"), ["rejects the credentials of context 'test'", "aws sso login"]),
    ]
    for command in COMMANDS:
        for kubeconfig, parts in cases:
            assert_refused(deploy(command, "local-cpu", kubeconfig=kubeconfig), *parts)


def test_every_command_reports_an_unknown_scenario(deploy):
    for command in ("render", *COMMANDS):
        assert_refused(deploy(command, "yolo-gpus"), "no scenario 'yolo-gpus'", "did you mean 'yolo-gpu'?")


def test_an_invalid_override_changes_nothing(deploy, changed):
    assert_refused(deploy("up", "local-cpu", "--set", "images.tga=1"), "did you mean 'tag'?")
    assert changed() == []


def test_an_unknown_context_is_refused_with_the_known_ones(deploy):
    assert_refused(deploy("status", "local-cpu", "--context", "prod"), "no context 'prod'; known: test")


def test_a_server_with_another_certificate_is_refused(deploy, kubernetes, tmp_path):
    content = Path(kubernetes.kubeconfig).read_text()
    path = tmp_path / "other"
    path.write_text(re.sub(r"certificate-authority-data: .*", "insecure-skip-tls-verify: false", content))
    ended = deploy("status", "local-cpu", kubeconfig=path)
    assert_refused(ended, "can't reach https://127.0.0.1:", "certificate verify failed")


def test_a_cluster_without_kuberay_is_refused_with_how_to_install_it(deploy, kubernetes, changed):
    kubernetes.control(reset={"crds": False})
    for command in ("up", "diff"):
        assert_refused(deploy(command, "local-cpu"), "KubeRay isn't installed", "helm install kuberay-operator")
    kubernetes.control(reset={}, operator={"version": None})
    assert_refused(deploy("up", "local-cpu"), "no KubeRay operator runs in this cluster", "helm install")
    assert changed() == []


def test_only_operators_from_1_6_and_below_2_are_accepted(deploy, kubernetes, changed):
    for version in ("v1.3.0", "v1.5.1", "v2.0.0"):
        kubernetes.control(operator={"version": version})
        assert_refused(
            deploy("up", "local-cpu"),
            f"kuberay-system/kuberay-operator has version {version[1:]} (quay.io/kuberay/operator:{version})",
            "at least 1.6 and below 2",
            "helm upgrade",
        )
    assert changed() == []
    for version in ("v1.6.2", "v1.12.0"):
        kubernetes.control(operator={"version": version})
        assert deploy("up", "local-cpu", "--no-wait").status == 0, version


def test_an_operator_that_is_not_ready_is_refused(deploy, kubernetes, changed):
    kubernetes.merge(f"{OPERATOR}/status", {"status": {"readyReplicas": 0}})
    assert_refused(deploy("up", "local-cpu"), "kuberay-system/kuberay-operator isn't ready", "kubectl describe")
    assert changed() == [("PATCH", f"{OPERATOR}/status")]


def test_an_operator_image_without_a_version_is_noted(deploy, kubernetes):
    containers = [{"name": "kuberay-operator", "image": "mirror.example/kuberay@sha256:" + "0" * 64}]
    kubernetes.merge(OPERATOR, {"spec": {"template": {"spec": {"containers": containers}}}})
    ended = deploy("up", "local-cpu", "--no-wait")
    assert ended.status == 0, ended.err
    assert "kuberay-operator: unknown version, image mirror.example/kuberay@sha256:" in ended.out


def test_missing_permissions_are_all_listed_before_anything_changes(deploy, kubernetes, changed):
    reader = kubernetes.user("reader", {"verbs": ["get", "list", "watch"]})
    assert_refused(
        deploy("up", "local-cpu", kubeconfig=reader),
        "context 'test' may not ",
        "create, patch namespaces;",
        "create, patch rayservices.ray.io in serve-app",
        "create, patch networkpolicies.networking.k8s.io in serve-app",
        "create, delete, patch configmaps in serve-app",
        "nothing was changed",
    )
    assert changed() == []


def test_what_the_cluster_refuses_in_the_dry_run_changes_nothing(deploy, kubernetes, namespace, changed):
    """As a webhook, RBAC escalation, or an older CRD does."""
    before = changed()
    for failure, message in (
        ({"code": 403, "reason": "Forbidden", "message": "roles are escalating"}, "roles are escalating"),
        (
            {"code": 500, "message": ".spec.x: field not declared in schema"},
            "field not declared in schema; its CRDs may be older than these manifests",
        ),
    ):
        kubernetes.control(failing={"path": "/roles/"} | failure)
        assert_refused(deploy("up", "local-cpu"), message)
    assert changed() == before


def test_a_deployer_skips_what_only_an_administrator_may_change(deploy, deployer):
    ended = deploy("upgrade", "local-cpu", "--set", "images.tag=0.2.0", kubeconfig=deployer)
    assert ended.status == 0, ended.out + ended.err
    assert "note: skipped Namespace serve-app: you may not change it" in ended.out
    assert "note: skipped Role serve-app-deployer: you may not change it" in ended.out
    assert "the KubeRay operator wasn't checked" in ended.out
    assert deploy("history", "local-cpu", kubeconfig=deployer).out.count("served") == 2
    assert deploy("status", "local-cpu", kubeconfig=deployer).status == 0
    shown = deploy("diff", "local-cpu", kubeconfig=deployer)
    assert shown.status == 1
    assert "+++ new RayService/serve-app" in shown.out
    other = deploy("up", "local-cpu", "--set", "name=other", kubeconfig=deployer)
    assert_refused(other, "create, get, patch roles.rbac.authorization.k8s.io in serve-app")


def test_missing_secrets_and_keys_are_refused(deploy, kubernetes, changed):
    ended = deploy("up", "yolo-gpu")
    assert_refused(
        ended,
        "namespace serve-app lacks Secret serve-app-api-keys with key keys.yaml, Secret serve-app-keys with key admin; "
        "nothing was changed",
        "`kubectl create namespace serve-app`, then ",
        "`kubectl create secret generic serve-app-api-keys -n serve-app --from-file=keys.yaml=FILE`",
    )
    assert changed() == []
    kubernetes.create("/api/v1/namespaces", {"metadata": {"name": "serve-app"}})
    kubernetes.create(f"{NAMESPACE}/secrets", {"metadata": {"name": "serve-app-keys"}, "data": {"b": "eA=="}})
    ended = deploy("up", "yolo-gpu")
    assert_refused(ended, "key admin of Secret serve-app-keys")
    assert "eA==" not in ended.err + ended.out


def test_a_namespace_that_is_being_deleted_is_refused(deploy, kubernetes, namespace, changed):
    kubernetes.create(f"{NAMESPACE}/configmaps", {"metadata": {"name": "held", "finalizers": ["example.com/hold"]}})
    kubernetes.request("DELETE", NAMESPACE)
    before = changed()
    assert_refused(deploy("up", "local-cpu"), "namespace serve-app is being deleted; wait until it is gone")
    assert changed() == before


def test_upgrade_and_rollback_need_an_existing_service(deploy, changed):
    assert_refused(deploy("upgrade", "local-cpu"), "RayService serve-app/serve-app not found: create it with scripts/")
    assert_refused(deploy("rollback", "local-cpu"), "serve-app/serve-app has no revisions")
    assert changed() == []


def test_an_invalid_command_line_is_refused_with_its_usage(deploy):
    for arguments, message in (
        ([""], "invalid choice"),
        (["fly", "local-cpu"], "invalid choice: 'fly'"),
        (["up"], "required: SCENARIO"),
        (["up", "local-cpu", "--timeout", "0"], "--timeout: must be greater than 0, got 0"),
        (["upgrade", "local-cpu", "--strategy", "sideways"], "invalid choice: 'sideways'"),
        (["render", "local-cpu", "--write", "--output", "x"], "not allowed with argument --write"),
        (["rollback", "local-cpu", "--to", "first"], "invalid int value: 'first'"),
        (["port-forward", "local-cpu", "--http", "99999"], "--http: must be between 0 and 65535, got 99999"),
        (["port-forward", "local-cpu", "--grpc", "-1"], "--grpc: must be between 0 and 65535, got -1"),
    ):
        ended = deploy(*arguments)
        assert ended.status == 2, arguments
        assert ended.err.startswith("usage: ")
        assert message in ended.err

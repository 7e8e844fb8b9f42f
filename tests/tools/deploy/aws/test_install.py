"""scripts/install against moto and the Kubernetes API over HTTP; eksctl, helm and scripts/deploy are faked."""

import base64
import json
import stat

import boto3
import yaml

from serve_app.tools.deploy.scenarios.scenario import read_scenario

BUCKET = "serve-app-eks-models-123456789012-us-west-2"
REGISTRY = "123456789012.dkr.ecr.us-west-2.amazonaws.com/serve-app"
CLUSTER_STACK = "eksctl-serve-app-eks-cluster"
TOKEN = "hf_very_secret_token"
# For each step in order: a call of a tool or a request that fails.
FAILURES = {
    "bucket": {"request": "?versioning"},
    "images": {"request": "CreateRepository"},
    "roles": {"request": "Action=CreateStack"},
    "cluster": {"tool_call": "eksctl create cluster"},
    "secrets": {"request": "POST /kubernetes/api/v1/namespaces/serve-app/secrets"},
    "add-ons": {"tool_call": "--install kuberay-operator"},
    "monitoring": {"request": "PATCH /kubernetes/apis/monitoring.coreos.com"},
    "models": {"request": f"PUT /{BUCKET}/models/"},
}


def secret_of(account, namespace, name, key):
    secret = account.kubernetes("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")
    return base64.b64decode(secret["data"][key]).decode()


def test_a_failed_step_is_named_the_next_run_continues_and_no_secret_is_printed_with_faked_tools(account, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    output, start = "", "check"
    for step, failure in FAILURES.items():
        account.fail(**failure)
        ended = account.install("--scenario=all", f"--from={start}")
        output += ended.output
        assert ended.code == 1, step
        assert f"error: step {step}: " in ended.err, step
        assert f"fix this and run scripts/install again (or `scripts/install --from {step}`)" in ended.err, step
        start = step
    account.fail()
    ended = account.install("--scenario=all", f"--from={start}")
    images = f"vision llm with tag 0.1.0; build and push them with `kuberay/images/build --registry {REGISTRY}"
    assert f"warning: push these images before the last step: {images}" in output
    assert f"error: step service: images are missing: {images}" in ended.err
    assert account.deploys == []
    account.push_images()
    ended = account.install("--scenario=all")
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "done"), ended.output
    assert len(account.deploys) == 1
    assert secret_of(account, "serve-app", "serve-app-hub", "token") == TOKEN
    assert "kubernetes set Secret/serve-app-hub in serve-app: token" in output
    keys = [
        secret_of(account, *names)
        for names in (("serve-app", "serve-app-keys", "admin"), ("monitoring", "grafana-admin", "admin-password"))
    ]
    assert min(map(len, keys)) >= 32
    seen = output + ended.output + json.dumps([account.calls, account.deploys]) + account.kubeconfig.read_text()
    assert [secret for secret in (TOKEN, *keys) if secret in seen] == []
    assert stat.S_IMODE(account.kubeconfig.stat().st_mode) == 0o600
    monkeypatch.setenv("HF_TOKEN", "hf_new")
    assert account.install("--scenario=all", "--only=secrets").code == 0
    assert secret_of(account, "serve-app", "serve-app-hub", "token") == "hf_new"


def test_a_stack_without_its_cluster_is_deleted_and_created_again_with_a_faked_eksctl(account):
    for status in ("ROLLBACK_COMPLETE", "CREATE_FAILED", "DELETE_FAILED"):
        account.aws.reset()
        account.aws.create_stack(CLUSTER_STACK, status)
        before = len(account.calls)
        ended = account.install("--only=cluster")
        assert ended.code == 0, ended.output
        assert f"the stack {CLUSTER_STACK} is {status} and has no cluster: deleting it, then creating it" in ended.out
        assert [call["argv"][0] for call in account.calls[before:]] == ["delete", "create"]
        assert boto3.client("eks").list_clusters()["clusters"] == ["serve-app-eks"]


def test_a_stack_that_is_changing_is_waited_for(account, monkeypatch):
    monkeypatch.setattr("serve_app.tools.deploy.aws.cluster.TIMEOUT_S", 0.1)
    account.aws.create_stack(CLUSTER_STACK, "ROLLBACK_IN_PROGRESS")
    ended = account.install("--only=cluster")
    assert ended.code == 1
    assert f"step cluster: timed out after 0.1 s waiting until the stack {CLUSTER_STACK} stops changing" in ended.err
    assert account.calls == []


def test_a_cluster_that_is_not_active_is_named_with_what_to_do_with_a_faked_eksctl(account):
    assert account.install("--only=cluster").code == 0
    for status, step, message in (
        ("CREATING", "access", "the cluster serve-app-eks is CREATING; --from cluster waits for it"),
        ("FAILED", "cluster", "serve-app-eks is FAILED: delete it with `scripts/cleanup --from cluster`, then install"),
        ("DELETING", "cluster", "the cluster serve-app-eks is being deleted: install again when it is gone"),
    ):
        account.aws.set_status(status)
        ended = account.install(f"--only={step}")
        assert ended.code == 1, status
        assert f"step {step}: " in ended.err, status
        assert message in ended.err, status


def test_failed_and_missing_parts_of_a_cluster_are_created_alone_with_a_faked_eksctl(account):
    assert account.install("--only=cluster").code == 0
    eks = boto3.client("eks")

    def lose_some():
        account.aws.addons.remove("aws-ebs-csi-driver")
        account.aws.identities.pop()

    def fail_some():
        account.aws.set_status("CREATE_FAILED", "system")
        account.aws.failed_addons = ["coredns"]

    def leave_only_the_stack_of_the_node_group():
        eks.delete_nodegroup(clusterName="serve-app-eks", nodegroupName="system")
        account.aws.create_stack("eksctl-serve-app-eks-nodegroup-system", "ROLLBACK_COMPLETE")

    for damage, created in (
        (lose_some, ["create addon aws-ebs-csi-driver", "create podidentityassociation serve-app"]),
        (fail_some, ["create addon coredns", "delete nodegroup", "create nodegroup system"]),
        (leave_only_the_stack_of_the_node_group, ["delete nodegroup", "create nodegroup system"]),
    ):
        before = len(account.calls)
        damage()
        ended = account.install("--only=cluster")
        assert ended.code == 0, ended.output
        assert [what_is_created(call) for call in account.calls[before:]] == created
        group = eks.describe_nodegroup(clusterName="serve-app-eks", nodegroupName="system")
        assert group["nodegroup"]["status"] == "ACTIVE"


def what_is_created(call):
    verb, part = call["argv"][:2]
    config = yaml.safe_load(call["stdin"] or "{}")
    names = {
        "addon": [one["name"] for one in config.get("addons", [])],
        "nodegroup": [one["name"] for one in config.get("managedNodeGroups", [])],
        "podidentityassociation": [
            one["serviceAccountName"] for one in config.get("iam", {}).get("podIdentityAssociations", [])
        ],
    }[part]
    return " ".join([verb, part, *(names if verb == "create" else [])])


def test_pods_of_a_service_with_another_name_may_read_models_with_a_faked_eksctl(account):
    assert account.install("--only=cluster", "--set=name=robot").code == 0
    assert account.aws.identities[-1] == {"namespace": "serve-app", "serviceAccount": "robot"}
    assert account.install("--only=cluster").code == 0
    created = [yaml.safe_load(call["stdin"]) for call in account.calls if call["argv"][0] == "create"]
    roles = [config["iam"]["podIdentityAssociations"][-1].get("roleName") for config in created]
    assert roles == [None, "serve-app-eks-models"]


def test_a_single_step_replaces_a_kubeconfig_of_an_earlier_cluster_with_a_faked_eksctl(account):
    assert account.install("--only=cluster").code == 0
    account.kubeconfig.parent.write_text("a file in the place of a folder")
    ended = account.install("--only=access")
    assert ended.code == 1
    assert f"step access: can't write --kubeconfig {account.kubeconfig}: " in ended.err
    account.kubeconfig.parent.unlink()
    account.kubeconfig.parent.mkdir()
    earlier = {"name": "serve-app-eks", "cluster": {"server": "http://127.0.0.1:9"}}
    account.kubeconfig.write_text(yaml.safe_dump({"clusters": [earlier], "contexts": [{"name": "serve-app-eks"}]}))
    ended = account.install("--only=secrets")
    assert ended.code == 0, ended.output
    (cluster,) = yaml.safe_load(account.kubeconfig.read_text())["clusters"]
    assert cluster["cluster"]["server"] == f"{account.aws.url}/kubernetes"


def test_images_in_another_registry_are_not_looked_for_on_ecr_with_a_faked_eksctl(account):
    assert account.install("--only=cluster").code == 0
    ended = account.install("--only=service", "--set=images.registry=registry.example/team")
    assert ended.code == 0, ended.output
    assert "--set=images.registry=registry.example/team" in account.deploys[0]
    assert [line for line in account.aws.requests if "DescribeImages" in line] == []
    saved = read_scenario(str(account.saved / "serve-app-eks.yolo-gpu.yaml"))
    assert saved.images.registry == "registry.example/team"

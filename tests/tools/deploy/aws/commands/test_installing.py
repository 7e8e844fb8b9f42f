"""scripts/install from end to end, against moto and the Kubernetes API over HTTP."""

import base64
import json
import stat

import boto3
import pytest
import yaml

from serve_app.tools.deploy.scenarios.scenario import read_scenario

BUCKET = "serve-app-eks-models-123456789012-us-west-2"
TOKEN = "hf_very_secret_token"


def decoded(secret, key):
    return base64.b64decode(secret["data"][key]).decode()


def test_one_command_makes_everything_with_a_faked_eksctl_and_helm(installed, aws, tools, kubernetes, scripts):
    s3 = boto3.client("s3")
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    assert all(s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"].values())
    assert json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"][0]["Effect"] == "Deny"
    assert s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    rules = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert rules[0]["NoncurrentVersionExpiration"]["NoncurrentDays"] == 30
    assert [one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET, Prefix="models/")["Contents"]]
    assert {one["repositoryName"] for one in boto3.client("ecr").describe_repositories()["repositories"]} == {
        "serve-app/cpu",
        "serve-app/head",
        "serve-app/vision",
        "serve-app/llm",
    }
    assert boto3.client("cloudformation").describe_stacks(StackName="Karpenter-serve-app-eks")["Stacks"]
    assert boto3.client("sqs").get_queue_url(QueueName="Karpenter-serve-app-eks")
    assert boto3.client("eks").describe_cluster(name="serve-app-eks")["cluster"]["status"] == "ACTIVE"
    assert kubernetes("GET", "/apis/storage.k8s.io/v1/storageclasses/gp3")
    assert kubernetes("GET", "/apis/karpenter.sh/v1/nodepools/g6")
    assert kubernetes("GET", "/apis/monitoring.coreos.com/v1/namespaces/serve-app/podmonitors/serve-app")
    assert len(decoded(kubernetes("GET", "/api/v1/namespaces/serve-app/secrets/serve-app-keys"), "admin")) >= 32
    assert decoded(kubernetes("GET", "/api/v1/namespaces/monitoring/secrets/grafana-admin"), "admin-user") == "admin"
    assert [line.split()[3] for line in tools.lines("helm upgrade")][-7:] == [
        "aws-load-balancer-controller",
        "kube-prometheus-stack",
        "karpenter-crd",
        "karpenter",
        "nvidia-device-plugin",
        "dcgm-exporter",
        "kuberay-operator",
    ]
    assert len(scripts()) == 1
    assert scripts()[0].startswith("up yolo-gpu --kubeconfig=")
    assert f"--set=models.url=s3://{BUCKET}/models" in scripts()[0]
    assert "--set=images.registry=123456789012.dkr.ecr.us-west-2.amazonaws.com/serve-app" in scripts()[0]


def test_the_scenario_is_kept_with_its_registry_and_bucket_for_later_commands(installed, tmp_path):
    kept = tmp_path / "sites" / "serve-app-eks.yolo-gpu.yaml"
    assert f"scripts/deploy status {kept}" in installed.out
    scenario = read_scenario(str(kept))
    registry = "123456789012.dkr.ecr.us-west-2.amazonaws.com/serve-app"
    changed = [f"images.registry={registry}", f"models.url=s3://{BUCKET}/models"]
    assert scenario == read_scenario("yolo-gpu", changed)


def test_a_second_run_changes_no_key_and_makes_no_second_cluster_with_a_faked_eksctl(
    installed, whole, tools, kubernetes
):
    path = "/api/v1/namespaces/serve-app/secrets/serve-app-keys"
    before = kubernetes("GET", path)["data"]
    assert whole().code == 0
    assert kubernetes("GET", path)["data"] == before
    assert len(tools.lines("eksctl create")) == 1


def test_what_eksctl_and_helm_are_given_is_of_this_account_with_a_faked_eksctl_and_helm(installed, tools):
    (created,) = [call for call in tools.calls if call["argv"][:2] == ["create", "cluster"]]
    config = yaml.safe_load(created["stdin"])
    assert config["metadata"]["name"] == "serve-app-eks"
    assert config["iam"]["podIdentityAssociations"][0]["permissionPolicyARNs"][0].split(":")[4] == "123456789012"
    assert config["iam"]["podIdentityAssociations"][-1]["permissionPolicy"]["Statement"][0]["Resource"].endswith(BUCKET)
    assert all("111122223333" not in call["stdin"] for call in tools.calls)
    (balancers,) = {line.partition("vpcId=")[2].split()[0] for line in tools.lines("upgrade", "vpcId=")}
    assert balancers.startswith("vpc-")
    assert all("--version=" in line and "--wait" in line for line in tools.lines("helm upgrade"))


def test_no_secret_is_printed_or_in_an_argument_or_in_the_kubeconfig(
    run, aws, tools, kubernetes, scripts, monkeypatch, tmp_path
):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    ran = run("install", "--scenario=all", "--no-models")
    assert "step service: images are missing" in ran.err
    token = kubernetes("GET", "/api/v1/namespaces/serve-app/secrets/serve-app-hub")
    assert decoded(token, "token") == TOKEN
    secrets = [
        decoded(kubernetes("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}"), key)
        for namespace, name, key in (
            ("serve-app", "serve-app-keys", "admin"),
            ("monitoring", "grafana-admin", "admin-password"),
        )
    ]
    kubeconfig = tmp_path / "kube" / "config"
    seen = ran.everything + json.dumps(tools.calls) + "\n".join(scripts()) + kubeconfig.read_text()
    assert [one for one in (TOKEN, *secrets) if one in seen] == []
    assert stat.S_IMODE(kubeconfig.stat().st_mode) == 0o600
    assert "set Secret/serve-app-hub in serve-app: token" in ran.out


def test_a_new_token_replaces_the_old_one(run, aws, tools, kubernetes, scripts, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    run("install", "--scenario=llm-gpu", "--no-models")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert run("install", "--scenario=llm-gpu", "--only=secrets").code == 0
    assert decoded(kubernetes("GET", "/api/v1/namespaces/serve-app/secrets/serve-app-hub"), "token") == "hf_another"


def test_a_gated_model_without_a_token_is_told_before_anything_is_made(run, aws, tools, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    ran = run("install", "--scenario=llm-gpu", "--no-models")
    assert ran.code == 1
    assert "set HF_TOKEN" in ran.err
    assert boto3.client("s3").list_buckets()["Buckets"] == []


FAILURES = {
    "bucket": ("aws", "?versioning"),
    "images": ("aws", "CreateRepository"),
    "roles": ("aws", "Action=CreateStack"),
    "cluster": ("tools", "eksctl create cluster"),
    "secrets": ("aws", "POST /kubernetes/api/v1/namespaces/serve-app/secrets"),
    "add-ons": ("tools", "--install kuberay-operator"),
    "monitoring": ("aws", "PATCH /kubernetes/apis/monitoring.coreos.com"),
    "models": ("aws", f"PUT /{BUCKET}/models/"),
}


@pytest.mark.parametrize("step", FAILURES)
def test_a_failure_names_its_step_and_the_next_run_finishes_with_a_faked_eksctl_and_helm(
    step, whole, aws, tools, scripts, push_images
):
    where, part = FAILURES[step]
    if step != "images":
        assert whole("--only=images").code == 0
        push_images()
    if where == "aws":
        aws.refused = [part]
    else:
        tools.fail(part)
    failed = whole()
    assert failed.code == 1
    assert f"error: step {step}: " in failed.err
    assert "run scripts/install again: it goes on" in failed.err
    aws.refused = []
    tools.heal()
    if step == "images":
        assert whole("--only=images").code == 0
        push_images()
    again = whole()
    assert again.code == 0, again.everything
    assert again.out.splitlines()[-1] == "done"
    assert len(scripts()) == 1


def test_missing_images_are_told_early_and_end_the_last_step_with_a_faked_eksctl_and_helm(whole, push_images, scripts):
    ran = whole()
    assert ran.code == 1
    assert "warning: the last step needs images that aren't there yet: head vision with tag 0.1.0" in ran.out
    assert "error: step service: images are missing: head vision with tag 0.1.0 in 123456789012.dkr.ecr" in ran.err
    push_images()
    assert whole("--from=service").code == 0
    assert len(scripts()) == 1


def test_what_eksctl_left_undone_is_made_alone_with_a_faked_eksctl(installed, whole, aws, tools):
    aws.addons.remove("aws-ebs-csi-driver")
    aws.identities.pop()
    boto3.client("eks").delete_nodegroup(clusterName="serve-app-eks", nodegroupName="system")
    assert whole("--only=cluster").code == 0
    made = [call for call in tools.calls if call["argv"][:1] == ["create"]][1:]
    assert [call["argv"][1] for call in made] == ["addon", "nodegroup", "podidentityassociation"]
    assert [one["name"] for one in yaml.safe_load(made[0]["stdin"])["addons"]] == ["aws-ebs-csi-driver"]
    assert [
        one["serviceAccountName"] for one in yaml.safe_load(made[2]["stdin"])["iam"]["podIdentityAssociations"]
    ] == ["serve-app"]


@pytest.mark.parametrize(("status", "mended"), [("pending-install", "uninstall"), ("pending-upgrade", "rollback")])
def test_a_release_that_hangs_is_mended_first_with_a_faked_helm(status, mended, installed, whole, tools):
    tools.set_release("kuberay-operator", status)
    assert whole("--only=add-ons").code == 0
    assert len(tools.lines(f"helm {mended} kuberay-operator")) == 1


def test_a_rehearsal_makes_nothing_and_asks_nobody(run, aws, tools, scripts):
    for command in ("install", "cleanup"):
        ran = run(command, "--dry-run", *(["--delete-models", "--delete-images"] if command == "cleanup" else []))
        assert ran.code == 0, ran.everything
        assert "nothing was done: this was a rehearsal" in ran.out
    assert (aws.requests, tools.calls, scripts()) == ([], [], [])


@pytest.mark.parametrize("scenario", ["yolo-gpu", "llm-gpu", "all", "high-availability"])
def test_a_rehearsal_tells_every_call(scenario, run, aws, tools, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    out = run("install", "--dry-run", f"--scenario={scenario}", "--cluster-name=other", "--region=eu-west-1").out
    for call in (
        "aws s3 create_bucket Bucket=other-models-111122223333-eu-west-1",
        "aws ecr create_repository repositoryName=serve-app/vision",
        "aws cloudformation create_stack StackName=Karpenter-other",
        "run eksctl create cluster --config-file - < kuberay/cluster/eksctl.yaml",
        "run helm upgrade --install kuberay-operator kuberay-operator --repo",
        "kubernetes apply NodePool/g5",
        f"scripts/deploy up {scenario} ",
    ):
        assert call in out


def test_the_policy_of_pushers_follows_its_file(installed, whole, aws, monkeypatch):
    iam = boto3.client("iam")
    arn = "arn:aws:iam::123456789012:policy/serve-app-eks-models-write"
    assert iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"] == "v1"
    old = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]})
    for _ in range(4):
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=old, SetAsDefault=True)
    assert whole("--only=bucket").code == 0
    default = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    document = iam.get_policy_version(PolicyArn=arn, VersionId=default)["PolicyVersion"]["Document"]
    assert "s3:PutObject" in document["Statement"][1]["Action"]

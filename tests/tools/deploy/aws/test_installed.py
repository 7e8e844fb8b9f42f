"""What one run of scripts/install leaves, what further runs change, and its cleanup; the tools are faked."""

import json
import re

import boto3
import yaml

from serve_app.tools.deploy.aws.addons import CHARTS
from serve_app.tools.deploy.scenarios.scenario import read_scenario

BUCKET = "serve-app-eks-models-123456789012-us-west-2"
REGISTRY = "123456789012.dkr.ecr.us-west-2.amazonaws.com/serve-app"
KEYS = "/api/v1/namespaces/serve-app/secrets/serve-app-keys"


def test_the_bucket_is_private_encrypted_versioned_and_has_the_models(installed):
    s3 = boto3.client("s3")
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    assert all(s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"].values())
    assert json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"])["Statement"][0]["Effect"] == "Deny"
    assert s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    (rule,) = s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert rule["NoncurrentVersionExpiration"]["NoncurrentDays"] == 30
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="models/")["Contents"]


def test_the_account_and_the_cluster_have_everything_with_faked_tools(installed):
    repositories = boto3.client("ecr").describe_repositories()["repositories"]
    assert {one["repositoryName"].split("/")[1] for one in repositories} == {"cpu", "head", "vision", "llm"}
    assert {one["imageTagMutability"] for one in repositories} == {"IMMUTABLE_WITH_EXCLUSION"}
    assert boto3.client("cloudformation").describe_stacks(StackName="Karpenter-serve-app-eks")["Stacks"]
    assert boto3.client("sqs").get_queue_url(QueueName="Karpenter-serve-app-eks")
    assert boto3.client("eks").describe_cluster(name="serve-app-eks")["cluster"]["status"] == "ACTIVE"
    for path in (
        "/apis/storage.k8s.io/v1/storageclasses/gp3",
        "/apis/karpenter.sh/v1/nodepools/g6",
        "/apis/monitoring.coreos.com/v1/namespaces/serve-app/podmonitors/serve-app",
        "/api/v1/namespaces/serve-app/configmaps/ray-dashboard-serve",
        "/api/v1/namespaces/monitoring/secrets/grafana-admin",
        KEYS,
    ):
        assert installed.kubernetes("GET", path), path


def test_eksctl_helm_and_deploy_get_the_names_of_this_account(installed):
    calls = [call for call in installed.calls if call["stdin"]]
    assert all("111122223333" not in call["stdin"] for call in calls)
    config = yaml.safe_load(calls[0]["stdin"])
    assert config["metadata"]["name"] == "serve-app-eks"
    karpenter, *_, models = config["iam"]["podIdentityAssociations"]
    assert karpenter["permissionPolicyARNs"][0].split(":")[4] == "123456789012"
    assert models["permissionPolicy"]["Statement"][0]["Resource"].endswith(BUCKET)
    upgrades = installed.calls_with("helm upgrade")[: len(CHARTS)]
    assert [line.split()[3] for line in upgrades] == [chart.release for chart in CHARTS]
    assert all("--version=" in line and "--wait" in line for line in upgrades)
    assert [line for line in upgrades if "--set=vpcId=vpc-" in line]
    up = installed.deploys[0]
    assert up.startswith("up yolo-gpu --kubeconfig=")
    assert {f"--set=models.url=s3://{BUCKET}/models", f"--set=images.registry={REGISTRY}"} <= set(up.split())


def test_the_scenario_is_saved_with_its_registry_and_bucket_for_later_commands(installed):
    path = installed.saved / "serve-app-eks.yolo-gpu.yaml"
    assert f"scripts/deploy status {path}" in installed.first.out
    filled = [f"images.registry={REGISTRY}", f"models.url=s3://{BUCKET}/models"]
    assert read_scenario(str(path)) == read_scenario("yolo-gpu", filled)


def test_a_second_run_changes_no_key_and_creates_no_second_cluster(installed):
    before = installed.kubernetes("GET", KEYS)["data"]
    assert installed.install("--no-models").code == 0
    assert installed.kubernetes("GET", KEYS)["data"] == before
    assert len(installed.calls_with("eksctl create")) == 1


def test_pending_releases_are_repaired_before_their_upgrade(installed):
    installed.set_releases(karpenter="pending-upgrade", **{"kuberay-operator": "pending-install"})
    assert installed.install("--only=add-ons").code == 0
    assert len(installed.calls_with("helm rollback karpenter")) == 1
    assert len(installed.calls_with("helm uninstall kuberay-operator")) == 1


def test_the_policy_for_pushing_models_is_updated_where_it_differs_from_its_file(installed):
    iam, arn = boto3.client("iam"), "arn:aws:iam::123456789012:policy/serve-app-eks-models-write"
    assert iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"] == "v1"
    other = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]})
    for _ in range(4):  # five are the most that IAM keeps
        iam.create_policy_version(PolicyArn=arn, PolicyDocument=other, SetAsDefault=True)
    assert installed.install("--only=bucket").code == 0
    default = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    document = iam.get_policy_version(PolicyArn=arn, VersionId=default)["PolicyVersion"]["Document"]
    assert "s3:PutObject" in document["Statement"][1]["Action"]


def step_names(ended):
    return re.findall(r"^\[\d/\d\] ([a-z-]+):", ended.out, re.MULTILINE)


def test_cleanup_deletes_all_in_reverse_order_and_models_and_images_only_when_told_with_faked_tools(installed):
    """Last in this module, as it ends the installation."""
    before = len(installed.calls_with("helm uninstall"))
    ended = installed.cleanup("--yes")
    assert ended.code == 0, ended.output
    assert step_names(ended) == ["check", "service", "nodes", "add-ons", "cluster", "roles", "rest"]
    assert installed.deploys[-1].startswith(f"down {installed.saved / 'serve-app-eks.yolo-gpu.yaml'} ")
    assert installed.deploys[-1].endswith("--yes")
    assert installed.kubernetes("GET", "/apis/karpenter.sh/v1/nodepools")["items"] == []
    uninstalled = [line.split()[2] for line in installed.calls_with("helm uninstall")[before:]]
    assert uninstalled == [chart.release for chart in reversed(CHARTS)]
    assert installed.calls_with("eksctl delete cluster --name=serve-app-eks --region=us-west-2 --wait")
    assert boto3.client("eks").list_clusters()["clusters"] == []
    assert f"bucket {BUCKET} (" in ended.out
    assert "repository serve-app/head (1 images" in ended.out
    assert boto3.client("s3").list_buckets()["Buckets"][0]["Name"] == BUCKET
    ended = installed.cleanup("--yes", "--delete-models", "--delete-images")
    assert ended.code == 0, ended.output
    assert step_names(ended)[-3:] == ["images", "bucket", "rest"]
    assert ended.out.count("there is no cluster serve-app-eks: nothing to do") == 3
    assert "nothing that costs money remains" in ended.out
    assert boto3.client("s3").list_buckets()["Buckets"] == []
    assert boto3.client("ecr").describe_repositories()["repositories"] == []
    assert installed.cleanup("--yes", "--delete-models", "--delete-images").code == 0

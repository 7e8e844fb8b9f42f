"""scripts/cleanup from end to end, against moto and the Kubernetes API over HTTP."""

import re

import boto3

BUCKET = "serve-app-eks-models-123456789012-us-west-2"


def test_cleanup_ends_everything_last_first_with_a_faked_eksctl_and_helm(
    installed, run, aws, tools, kubernetes, scripts
):
    ran = run("cleanup", "--yes", "--delete-models", "--delete-images")
    assert ran.code == 0, ran.everything
    assert scripts()[-1].startswith("down yolo-gpu ")
    assert scripts()[-1].endswith("--yes")
    assert re.findall(r"^\[\d/8\] ([a-z-]+):", ran.out, re.MULTILINE) == [
        "service",
        "nodes",
        "add-ons",
        "cluster",
        "roles",
        "images",
        "bucket",
        "rest",
    ]
    assert kubernetes("GET", "/apis/karpenter.sh/v1/nodepools")["items"] == []
    assert next(line.split()[2] for line in tools.lines("helm uninstall")) == "kuberay-operator"
    assert tools.lines("eksctl delete cluster --name=serve-app-eks --region=us-west-2 --wait")
    assert boto3.client("eks").list_clusters()["clusters"] == []
    assert boto3.client("s3").list_buckets()["Buckets"] == []
    assert boto3.client("ecr").describe_repositories()["repositories"] == []
    assert "nothing of it remains that costs" in ran.out
    again = run("cleanup", "--yes", "--delete-models", "--delete-images")
    assert again.code == 0, again.everything
    assert "there is no cluster serve-app-eks: nothing to do" in again.out


def test_cleanup_keeps_models_and_images_and_says_what_they_cost_with_a_faked_eksctl(installed, run, aws):
    ran = run("cleanup", "--yes")
    assert ran.code == 0, ran.everything
    assert f"bucket {BUCKET} (" in ran.out
    assert "repository serve-app/head (1 images" in ran.out
    assert boto3.client("s3").list_buckets()["Buckets"][0]["Name"] == BUCKET


def test_cleanup_lists_what_the_cluster_left_behind(run, aws, tools, scripts):
    ec2, elb = boto3.client("ec2"), boto3.client("elbv2")
    tags = [{"Key": "kubernetes.io/cluster/serve-app-eks", "Value": "owned"}]
    made = [{"ResourceType": "volume", "Tags": tags}]
    ours = ec2.create_volume(Size=50, AvailabilityZone="us-west-2a", TagSpecifications=made)["VolumeId"]
    other = ec2.create_volume(Size=7, AvailabilityZone="us-west-2a")["VolumeId"]
    subnets = [one["SubnetId"] for one in ec2.describe_subnets()["Subnets"][:2]]
    elb.create_load_balancer(
        Name="k8s-serve", Subnets=subnets, Tags=[{"Key": "elbv2.k8s.aws/cluster", "Value": "serve-app-eks"}]
    )
    boto3.client("logs").create_log_group(logGroupName="/aws/eks/serve-app-eks/cluster")
    out = run("cleanup", "--yes", "--only=rest").out
    assert f"EBS volume {ours} (50 GiB" in out
    assert other not in out
    assert "load balancer k8s-serve" in out
    assert "log group /aws/eks/serve-app-eks/cluster" in out


def test_cleanup_waits_for_load_balancers_before_it_ends_what_would_delete_them(run, aws, tools, scripts, monkeypatch):
    monkeypatch.setattr("serve_app.deploy.aws.installation.BALANCERS_TIMEOUT_S", 0.1)
    subnets = [one["SubnetId"] for one in boto3.client("ec2").describe_subnets()["Subnets"][:2]]
    boto3.client("elbv2").create_load_balancer(
        Name="k8s-serve", Subnets=subnets, Tags=[{"Key": "elbv2.k8s.aws/cluster", "Value": "serve-app-eks"}]
    )
    ran = run("cleanup", "--yes")
    assert ran.code == 1
    assert "step service: waited 0.1 s until the load balancers are gone" in ran.err
    assert "[2/" not in ran.out


def test_cleanup_goes_no_further_while_karpenter_has_nodes_with_a_faked_eksctl_and_helm(
    installed, run, kubernetes, tools, monkeypatch
):
    monkeypatch.setattr("serve_app.deploy.aws.addons.NODES_TIMEOUT_S", 0.1)
    kinds = kubernetes("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/nodepools.karpenter.sh")
    claims = {"plural": "nodeclaims", "singular": "nodeclaim", "kind": "NodeClaim", "listKind": "NodeClaimList"}
    definition = {
        "apiVersion": kinds["apiVersion"],
        "kind": kinds["kind"],
        "metadata": {"name": "nodeclaims.karpenter.sh"},
        "spec": kinds["spec"] | {"names": claims},
    }
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    kubernetes("POST", path, definition)
    machine = kubernetes("GET", "/apis/karpenter.sh/v1/nodepools/g5")
    metadata = {"name": "g5-abcde"}
    kubernetes("POST", "/apis/karpenter.sh/v1/nodeclaims", machine | {"kind": "NodeClaim", "metadata": metadata})
    ran = run("cleanup", "--yes")
    kubernetes("DELETE", f"{path}/nodeclaims.karpenter.sh")
    assert ran.code == 1
    assert "step nodes: waited 0.1 s until Karpenter has ended its nodes, and it isn't so" in ran.err
    assert tools.lines("helm uninstall") == tools.lines("eksctl delete") == []


def test_cleanup_asks_first(run, aws, monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    ran = run("cleanup")
    assert ran.code == 1
    assert "--yes says that it is meant" in ran.err

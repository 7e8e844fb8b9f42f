"""scripts/cleanup from end to end, against moto and the Kubernetes API over HTTP."""

import io
import os
import re

import boto3
import pytest

from serve_app.tools.deploy.manifests import render
from serve_app.tools.deploy.scenarios.scenario import read_scenario

BUCKET = "serve-app-eks-models-123456789012-us-west-2"


def test_cleanup_ends_everything_last_first_with_a_faked_eksctl_and_helm(
    installed, run, aws, tools, kubernetes, scripts, tmp_path
):
    ran = run("cleanup", "--yes", "--delete-models", "--delete-images")
    assert ran.code == 0, ran.everything
    assert scripts()[-1].startswith(f"down {tmp_path / 'sites' / 'serve-app-eks.yolo-gpu.yaml'} ")
    assert scripts()[-1].endswith("--yes")
    assert re.findall(r"^\[\d/9\] ([a-z-]+):", ran.out, re.MULTILINE) == [
        "check",
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
    monkeypatch.setattr("serve_app.tools.deploy.aws.installation.BALANCERS_TIMEOUT_S", 0.1)
    subnets = [one["SubnetId"] for one in boto3.client("ec2").describe_subnets()["Subnets"][:2]]
    boto3.client("elbv2").create_load_balancer(
        Name="k8s-serve", Subnets=subnets, Tags=[{"Key": "elbv2.k8s.aws/cluster", "Value": "serve-app-eks"}]
    )
    ran = run("cleanup", "--yes")
    assert ran.code == 1
    assert "step service: waited 0.1 s until the load balancers are gone" in ran.err
    assert "[3/" not in ran.out


def test_cleanup_goes_no_further_while_karpenter_has_nodes_with_a_faked_eksctl_and_helm(
    installed, run, kubernetes, tools, monkeypatch
):
    monkeypatch.setattr("serve_app.tools.deploy.aws.addons.NODES_TIMEOUT_S", 0.1)
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


def test_the_end_of_input_at_the_question_is_a_no(run, aws, tools, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    ran = run("cleanup")
    assert ran.code == 1
    assert "error: no name was written: nothing was done" in ran.err
    assert tools.calls == []


def test_cleanup_looks_for_its_tools_before_it_takes_anything_away_with_a_faked_eksctl_and_helm(
    installed, run, aws, scripts, monkeypatch
):
    monkeypatch.setenv("PATH", os.defpath)
    ran = run("cleanup", "--yes")
    assert ran.code == 1
    assert "step check: eksctl is not on the PATH" in ran.err
    assert len(scripts()) == 1


def test_cleanup_takes_down_what_was_installed_under_other_names_with_a_faked_eksctl_and_helm(
    whole, with_images, run, tools, scripts, tmp_path
):
    robot = ["--set=name=robot", "--set=namespace=robots", "--set=operator_namespace=operators"]
    assert whole(*robot).code == 0
    ran = run("cleanup", "--yes")
    assert ran.code == 0, ran.everything
    kept = tmp_path / "sites" / "serve-app-eks.yolo-gpu.yaml"
    assert scripts()[-1].startswith(f"down {kept} ")
    assert read_scenario(str(kept)).namespace == "robots"
    assert tools.lines("helm uninstall kuberay-operator --namespace=operators")


def test_cleanup_takes_down_what_was_installed_from_elsewhere_with_a_faked_eksctl_and_helm(
    installed, run, kubernetes, scripts
):
    kubernetes("POST", "/api/v1/namespaces", {"metadata": {"name": "robots"}})
    rendered = render(read_scenario("yolo-gpu", ["name=robot", "namespace=robots"]))
    (service,) = [one for one in rendered if one["kind"] == "RayService"]
    kubernetes("POST", "/apis/ray.io/v1/namespaces/robots/rayservices", service)
    ran = run("cleanup", "--yes", "--only=service")
    kubernetes("DELETE", "/apis/ray.io/v1/namespaces/robots/rayservices/robot")
    assert ran.code == 0, ran.everything
    assert len(scripts()) == 3
    assert scripts()[-1].endswith("--set=name=robot --set=namespace=robots --yes")


def test_cleanup_takes_down_the_scenario_that_is_said_and_no_other(installed, run, scripts):
    assert run("cleanup", "--yes", "--only=service", "--scenario=all").code == 0
    assert [line.split()[:2] for line in scripts()[1:]] == [["down", "all"]]


def disk(name, namespace):
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Delete",
            "claimRef": {"namespace": namespace, "name": "data"},
            "hostPath": {"path": "/tmp"},
        },
    }


@pytest.mark.parametrize(("namespace", "code"), [("somebody", 0), ("monitoring", 1), ("serve-app", 1)])
def test_cleanup_waits_for_the_disks_of_what_it_deletes_alone_and_names_them_with_a_faked_eksctl_and_helm(
    namespace, code, installed, run, kubernetes, monkeypatch
):
    monkeypatch.setattr("serve_app.tools.deploy.aws.addons.VOLUMES_TIMEOUT_S", 0.1)
    kubernetes("POST", "/api/v1/persistentvolumes", disk("pvc-1", namespace))
    ran = run("cleanup", "--yes", "--only=add-ons")
    kubernetes("DELETE", "/api/v1/persistentvolumes/pvc-1")
    assert ran.code == code, ran.everything
    assert (f"the disks pvc-1 ({namespace}/data) are gone, and it isn't so" in ran.err) == bool(code)

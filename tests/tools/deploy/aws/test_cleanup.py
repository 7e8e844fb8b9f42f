"""scripts/cleanup of incomplete clusters, with moto and the Kubernetes API; `test_installed` cleans up a whole one."""

import io

import boto3
import yaml

from serve_app.tools.deploy.aws.installation import FILES
from serve_app.tools.deploy.manifests import render
from serve_app.tools.deploy.scenarios.scenario import read_scenario

CLUSTER_STACK = "eksctl-serve-app-eks-cluster"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def create_load_balancer():
    subnets = [one["SubnetId"] for one in boto3.client("ec2").describe_subnets()["Subnets"][:2]]
    tags = [{"Key": "elbv2.k8s.aws/cluster", "Value": "serve-app-eks"}]
    boto3.client("elbv2").create_load_balancer(Name="k8s-serve", Subnets=subnets, Tags=tags)


def test_cleanup_lists_what_the_cluster_left_and_nothing_of_others(account):
    ec2 = boto3.client("ec2")
    tags = [{"Key": "kubernetes.io/cluster/serve-app-eks", "Value": "owned"}]
    specification = [{"ResourceType": "volume", "Tags": tags}]
    zone = "us-west-2a"
    ours = ec2.create_volume(Size=50, AvailabilityZone=zone, TagSpecifications=specification)["VolumeId"]
    other = ec2.create_volume(Size=7, AvailabilityZone=zone)["VolumeId"]
    create_load_balancer()
    boto3.client("logs").create_log_group(logGroupName="/aws/eks/serve-app-eks/cluster")
    out = account.cleanup("--yes", "--only=rest").out
    assert "these remain, and cost money:" in out
    assert f"EBS volume {ours} (50 GiB" in out
    assert other not in out
    assert "load balancer k8s-serve" in out
    assert "log group /aws/eks/serve-app-eks/cluster" in out


def test_cleanup_deletes_no_more_while_load_balancers_or_nodes_remain_with_a_faked_eksctl(account, monkeypatch):
    monkeypatch.setattr("serve_app.tools.deploy.aws.installer.BALANCERS_TIMEOUT_S", 0.1)
    monkeypatch.setattr("serve_app.tools.deploy.aws.addons.NODES_TIMEOUT_S", 0.1)
    assert account.install("--only=cluster").code == 0
    create_node_claim(account.kubernetes)
    ended = account.cleanup("--yes")
    account.kubernetes("DELETE", f"{DEFINITIONS}/nodeclaims.karpenter.sh")
    assert ended.code == 1
    assert "step nodes: timed out after 0.1 s waiting until Karpenter has terminated its nodes" in ended.err
    create_load_balancer()
    ended = account.cleanup("--yes")
    assert ended.code == 1
    assert "step service: timed out after 0.1 s waiting until the load balancers are deleted" in ended.err
    assert account.calls_with("helm uninstall") == account.calls_with("eksctl delete") == []


def create_node_claim(kubernetes):
    pool_kind = kubernetes("GET", f"{DEFINITIONS}/nodepools.karpenter.sh")
    names = {"plural": "nodeclaims", "singular": "nodeclaim", "kind": "NodeClaim", "listKind": "NodeClaimList"}
    definition = {key: pool_kind[key] for key in ("apiVersion", "kind")} | {
        "metadata": {"name": "nodeclaims.karpenter.sh"},
        "spec": pool_kind["spec"] | {"names": names},
    }
    kubernetes("POST", DEFINITIONS, definition)
    pools = yaml.safe_load_all((FILES / "karpenter.nodepools.yaml").read_text())
    (pool,) = [one for one in pools if one["metadata"]["name"] == "g5"]
    claim = pool | {"kind": "NodeClaim", "metadata": {"name": "g5-abcde"}}
    kubernetes("POST", "/apis/karpenter.sh/v1/nodeclaims", claim)


def test_cleanup_waits_for_the_disks_of_what_it_deletes_and_of_nothing_else_with_faked_tools(account, monkeypatch):
    monkeypatch.setattr("serve_app.tools.deploy.aws.addons.VOLUMES_TIMEOUT_S", 0.1)
    assert account.install("--only=cluster").code == 0
    for namespace, code in (("somebody", 0), ("monitoring", 1), ("serve-app", 1)):
        account.kubernetes("POST", "/api/v1/persistentvolumes", disk("pvc-1", namespace))
        ended = account.cleanup("--yes", "--only=add-ons")
        account.kubernetes("DELETE", "/api/v1/persistentvolumes/pvc-1")
        assert ended.code == code, ended.output
        assert (f"waiting until the disks pvc-1 ({namespace}/data) are deleted" in ended.err) == bool(code)


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


def test_cleanup_needs_the_clusters_name_or_yes_to_begin(account, monkeypatch):
    ended = account.cleanup()
    assert ended.code == 1
    assert "can't ask for confirmation without a terminal; confirm with --yes" in ended.err
    for typed, answer in (("", "''"), ("another\n", "'another'")):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        ended = account.cleanup()
        assert ended.code == 1
        assert f"not confirmed: expected 'serve-app-eks', got {answer}; nothing was deleted" in ended.err
    assert account.calls == []


def test_cleanup_takes_down_every_service_of_the_cluster_or_the_one_that_is_named_with_a_faked_eksctl(account):
    assert account.install("--only=cluster").code == 0
    registry = "--set=images.registry=registry.example/team"
    assert account.install("--only=service", registry, "--set=name=robot", "--set=namespace=robots").code == 0
    create_service(account.kubernetes, "robots", "second")
    assert account.cleanup("--yes", "--only=service", "--scenario=all").code == 0
    assert [line.split()[:2] for line in account.deploys[1:]] == [["down", "all"]]
    ended = account.cleanup("--yes", "--only=service")
    assert ended.code == 0, ended.output
    saved, other = account.deploys[2:]
    assert saved.split()[:2] == ["down", str(account.saved / "serve-app-eks.yolo-gpu.yaml")]
    assert other.endswith("--set=name=second --set=namespace=robots --yes")


def create_service(kubernetes, namespace, name):
    kubernetes("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    manifests = render(read_scenario("yolo-gpu", [f"name={name}", f"namespace={namespace}"]))
    (service,) = [one for one in manifests if one["kind"] == "RayService"]
    kubernetes("POST", f"/apis/ray.io/v1/namespaces/{namespace}/rayservices", service)


def test_cleanup_skips_the_steps_inside_a_cluster_that_cannot_be_reached_with_a_faked_eksctl(account):
    for status in ("CREATING", "FAILED", "DELETING"):
        assert account.install("--only=cluster").code == 0
        account.aws.set_status(status)
        ended = account.cleanup("--yes")
        assert ended.code == 0, ended.output
        assert ended.out.count(f"the cluster serve-app-eks is {status}: nothing to do") == 3
        assert boto3.client("eks").list_clusters()["clusters"] == []
    assert account.deploys == account.calls_with("helm uninstall") == []


def test_cleanup_deletes_a_stack_whose_cluster_is_gone_with_a_faked_eksctl(account):
    account.aws.create_stack(CLUSTER_STACK, "DELETE_FAILED")
    for _ in range(2):
        ended = account.cleanup("--yes", "--only=cluster")
        assert ended.code == 0, ended.output
        assert len(account.calls_with("eksctl delete cluster --name=serve-app-eks")) == 1
    assert boto3.client("cloudformation").describe_stacks()["Stacks"] == []

"""AWS resources that remain after a cleanup and cost money, found by the tags that their creators set."""

from collections.abc import Iterator
from typing import Any

from serve_app.tools.deploy.aws.bucket import NO_BUCKET
from serve_app.tools.deploy.aws.images import IMAGES, NO_REPOSITORY, repository_of
from serve_app.tools.deploy.aws.installation import Installation
from serve_app.tools.deploy.aws.runner import Runner

BALANCER_TAG = "elbv2.k8s.aws/cluster"
EKSCTL_TAG = "alpha.eksctl.io/cluster-name"
TAGS_PER_REQUEST = 20
GIB = 2**30
TERMINATED = ("terminated", "shutting-down")


def remaining_costs(runner: Runner, installation: Installation) -> list[str]:
    """A line for each resource, with how it is charged."""
    return [
        *_instances(runner, installation),
        *(f"load balancer {name}: per hour and traffic" for name in load_balancers(runner, installation)),
        *_volumes(runner, installation),
        *_snapshots(runner, installation),
        *_gateways(runner, installation),
        *_addresses(runner, installation),
        *_logs(runner, installation),
        *_bucket(runner, installation),
        *_repositories(runner),
    ]


def load_balancers(runner: Runner, installation: Installation) -> list[str]:
    found = runner.get_all("elbv2", "describe_load_balancers", "LoadBalancers")
    names = {balancer["LoadBalancerArn"]: balancer["LoadBalancerName"] for balancer in found}
    arns = list(names)
    ours = []
    for start in range(0, len(arns), TAGS_PER_REQUEST):
        answer = runner.get("elbv2", "describe_tags", ResourceArns=arns[start : start + TAGS_PER_REQUEST]) or {}
        for described in answer.get("TagDescriptions", []):
            if {"Key": BALANCER_TAG, "Value": installation.cluster} in described["Tags"]:
                ours.append(names[described["ResourceArn"]])
    return ours


def _tagged(
    runner: Runner, installation: Installation, operation: str, key: str, id_key: str, **more: Any
) -> list[dict[str, Any]]:
    """Kubernetes puts the cluster's name into a tag's key, eksctl and EKS into its value."""
    filters = (
        {"Name": "tag-key", "Values": [f"kubernetes.io/cluster/{installation.cluster}"]},
        {"Name": f"tag:{EKSCTL_TAG}", "Values": [installation.cluster]},
        {"Name": "tag:eks:eks-cluster-name", "Values": [installation.cluster]},
    )
    found = [item for one in filters for item in runner.get_all("ec2", operation, key, Filters=[one], **more)]
    return list({item[id_key]: item for item in found}.values())


def _instances(runner: Runner, installation: Installation) -> Iterator[str]:
    reservations = _tagged(runner, installation, "describe_instances", "Reservations", "ReservationId")
    for instance in (one for reservation in reservations for one in reservation["Instances"]):
        if instance["State"]["Name"] not in TERMINATED:
            yield f"instance {instance['InstanceId']} ({instance['InstanceType']}): per second"


def _volumes(runner: Runner, installation: Installation) -> Iterator[str]:
    for volume in _tagged(runner, installation, "describe_volumes", "Volumes", "VolumeId"):
        yield f"EBS volume {volume['VolumeId']} ({volume['Size']} GiB, {volume['State']}): per month"


def _snapshots(runner: Runner, installation: Installation) -> Iterator[str]:
    own = {"OwnerIds": ["self"]}
    for snapshot in _tagged(runner, installation, "describe_snapshots", "Snapshots", "SnapshotId", **own):
        yield f"EBS snapshot {snapshot['SnapshotId']} ({snapshot['VolumeSize']} GiB): per month"


def _gateways(runner: Runner, installation: Installation) -> Iterator[str]:
    ours = _eksctl_filter(installation)
    for gateway in runner.get_all("ec2", "describe_nat_gateways", "NatGateways", Filters=ours):
        if gateway["State"] not in ("deleted", "deleting"):
            yield f"NAT gateway {gateway['NatGatewayId']}: per hour and traffic"


def _addresses(runner: Runner, installation: Installation) -> Iterator[str]:
    answer = runner.get("ec2", "describe_addresses", Filters=_eksctl_filter(installation)) or {}
    for address in answer.get("Addresses", []):
        yield f"elastic IP address {address['PublicIp']}: per hour"


def _eksctl_filter(installation: Installation) -> list[dict[str, Any]]:
    return [{"Name": f"tag:{EKSCTL_TAG}", "Values": [installation.cluster]}]


def _logs(runner: Runner, installation: Installation) -> Iterator[str]:
    prefix = f"/aws/eks/{installation.cluster}/"
    for group in runner.get_all("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=prefix):
        size = group.get("storedBytes", 0) / GIB
        yield f"log group {group['logGroupName']} ({size:.1f} GiB): per month, until its retention ends"


def _bucket(runner: Runner, installation: Installation) -> Iterator[str]:
    name = installation.bucket
    if runner.get("s3", "head_bucket", NO_BUCKET, Bucket=name) is not None:
        versions = runner.get_all("s3", "list_object_versions", "Versions", Bucket=name)
        size = sum(version["Size"] for version in versions) / GIB
        yield f"bucket {name} ({len(versions)} objects, {size:.1f} GiB): per month; --delete-models deletes it"


def _repositories(runner: Runner) -> Iterator[str]:
    for name in map(repository_of, IMAGES):
        if runner.get("ecr", "describe_repositories", NO_REPOSITORY, repositoryNames=[name]) is not None:
            images = runner.get_all("ecr", "describe_images", "imageDetails", repositoryName=name)
            size = sum(image.get("imageSizeInBytes", 0) for image in images) / GIB
            yield f"repository {name} ({len(images)} images, {size:.1f} GiB): per month; --delete-images deletes it"

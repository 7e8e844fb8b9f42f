"""What a cluster leaves behind and what goes on costing: found by the tags that its makers put on everything."""

from collections.abc import Iterator
from typing import Any

from serve_app.tools.deploy.aws.bucket import GONE
from serve_app.tools.deploy.aws.calls import Calls
from serve_app.tools.deploy.aws.repositories import IMAGES
from serve_app.tools.deploy.aws.site import REPOSITORY_PREFIX, Site

BALANCER_TAG = "elbv2.k8s.aws/cluster"
TAGS_AT_ONCE = 20  # what one describe_tags takes
GIB = 2**30
ENDED = ("terminated", "shutting-down")


def left_over(calls: Calls, site: Site) -> list[str]:
    return [
        *_instances(calls, site),
        *(f"load balancer {name}: by the hour, and by what passes" for name in load_balancers(calls, site)),
        *_volumes(calls, site),
        *_snapshots(calls, site),
        *_gateways(calls, site),
        *_addresses(calls, site),
        *_logs(calls, site),
        *_bucket(calls, site),
        *_images(calls),
    ]


def load_balancers(calls: Calls, site: Site) -> list[str]:
    found = calls.ask_all("elbv2", "describe_load_balancers", "LoadBalancers")
    names = {one["LoadBalancerArn"]: one["LoadBalancerName"] for one in found}
    arns = list(names)
    ours = []
    for start in range(0, len(arns), TAGS_AT_ONCE):
        answer = calls.ask("elbv2", "describe_tags", ResourceArns=arns[start : start + TAGS_AT_ONCE]) or {}
        for described in answer.get("TagDescriptions", []):
            tags = {tag["Key"]: tag["Value"] for tag in described["Tags"]}
            if tags.get(BALANCER_TAG) == site.cluster:
                ours.append(names[described["ResourceArn"]])
    return ours


def _tagged(calls: Calls, site: Site, operation: str, key: str, identity: str, **more: Any) -> list[dict[str, Any]]:
    """Kubernetes' own tag is a key with the cluster in it; eksctl's and EKS's are values."""
    filters = (
        {"Name": "tag-key", "Values": [f"kubernetes.io/cluster/{site.cluster}"]},
        {"Name": "tag:alpha.eksctl.io/cluster-name", "Values": [site.cluster]},
        {"Name": "tag:eks:eks-cluster-name", "Values": [site.cluster]},
    )
    found: dict[str, dict[str, Any]] = {}
    for one in filters:
        for item in calls.ask_all("ec2", operation, key, Filters=[one], **more):
            found[item[identity]] = item
    return list(found.values())


def _instances(calls: Calls, site: Site) -> Iterator[str]:
    seen = set()
    for reservation in _tagged(calls, site, "describe_instances", "Reservations", "ReservationId"):
        for instance in reservation["Instances"]:
            if instance["State"]["Name"] not in ENDED and instance["InstanceId"] not in seen:
                seen.add(instance["InstanceId"])
                yield f"instance {instance['InstanceId']} ({instance['InstanceType']}): by the second"


def _volumes(calls: Calls, site: Site) -> Iterator[str]:
    for volume in _tagged(calls, site, "describe_volumes", "Volumes", "VolumeId"):
        yield f"EBS volume {volume['VolumeId']} ({volume['Size']} GiB, {volume['State']}): by the month"


def _snapshots(calls: Calls, site: Site) -> Iterator[str]:
    for one in _tagged(calls, site, "describe_snapshots", "Snapshots", "SnapshotId", OwnerIds=["self"]):
        yield f"EBS snapshot {one['SnapshotId']} ({one['VolumeSize']} GiB): by the month"


def _gateways(calls: Calls, site: Site) -> Iterator[str]:
    for gateway in calls.ask_all(
        "ec2",
        "describe_nat_gateways",
        "NatGateways",
        Filters=[{"Name": "tag:alpha.eksctl.io/cluster-name", "Values": [site.cluster]}],
    ):
        if gateway["State"] not in ("deleted", "deleting"):
            yield f"NAT gateway {gateway['NatGatewayId']}: by the hour, and by what passes"


def _addresses(calls: Calls, site: Site) -> Iterator[str]:
    only = [{"Name": "tag:alpha.eksctl.io/cluster-name", "Values": [site.cluster]}]
    answer = calls.ask("ec2", "describe_addresses", Filters=only) or {}
    for address in answer.get("Addresses", []):
        yield f"elastic IP address {address['PublicIp']}: by the hour"


def _logs(calls: Calls, site: Site) -> Iterator[str]:
    prefix = f"/aws/eks/{site.cluster}/"
    for group in calls.ask_all("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=prefix):
        size = group.get("storedBytes", 0) / GIB
        yield f"log group {group['logGroupName']} ({size:.1f} GiB): by the month, until its retention is over"


def _bucket(calls: Calls, site: Site) -> Iterator[str]:
    if calls.ask("s3", "head_bucket", GONE, Bucket=site.bucket) is not None:
        versions = calls.ask_all("s3", "list_object_versions", "Versions", Bucket=site.bucket)
        size = sum(one["Size"] for one in versions) / GIB
        yield f"bucket {site.bucket} ({len(versions)} objects, {size:.1f} GiB): by the month; --delete-models ends it"


def _images(calls: Calls) -> Iterator[str]:
    absent = ("RepositoryNotFoundException",)
    for image in IMAGES:
        name = f"{REPOSITORY_PREFIX}/{image}"
        if calls.ask("ecr", "describe_repositories", absent, repositoryNames=[name]) is not None:
            images = calls.ask_all("ecr", "describe_images", "imageDetails", repositoryName=name)
            size = sum(one.get("imageSizeInBytes", 0) for one in images) / GIB
            yield f"repository {name} ({len(images)} images, {size:.1f} GiB): by the month; --delete-images ends it"

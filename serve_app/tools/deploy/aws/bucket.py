"""The model bucket: private, encrypted, versioned, over TLS only; made, or emptied and deleted where it is wanted."""

import json
from typing import Any

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.aws.calls import Calls
from serve_app.tools.deploy.aws.site import Site

GONE = ("404", "NoSuchBucket", "NotFound")
BATCH = 1000  # what one delete_objects takes
OLD_VERSIONS_DAYS = 30
LIFECYCLE = {
    "Rules": [
        {
            "ID": "old-versions-and-broken-uploads",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "NoncurrentVersionExpiration": {"NoncurrentDays": OLD_VERSIONS_DAYS},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 2},
        }
    ]
}


def make_bucket(calls: Calls, site: Site) -> None:
    """Everything but its creation is said again at every run: it is the same, and half of it may be missing."""
    name = site.bucket
    if calls.ask("s3", "head_bucket", GONE, Bucket=name) is None:
        # us-east-1 is the one region that S3 doesn't take as a place
        place = {} if site.region == "us-east-1" else {"LocationConstraint": site.region}
        create: dict[str, Any] = {"Bucket": name} | ({"CreateBucketConfiguration": place} if place else {})
        calls.change("s3", "create_bucket", ("BucketAlreadyOwnedByYou",), **create)
    closed = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    calls.change(
        "s3", "put_public_access_block", Bucket=name, PublicAccessBlockConfiguration=dict.fromkeys(closed, True)
    )
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}
    calls.change("s3", "put_bucket_encryption", Bucket=name, ServerSideEncryptionConfiguration={"Rules": [rule]})
    calls.change("s3", "put_bucket_versioning", Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    calls.change("s3", "put_bucket_lifecycle_configuration", Bucket=name, LifecycleConfiguration=LIFECYCLE)
    policy = json.dumps(json.loads(site.read("iam.model-bucket.tls-only.json")))
    calls.change("s3", "put_bucket_policy", Bucket=name, Policy=policy)
    calls.change("s3", "put_bucket_tagging", Bucket=name, Tagging={"TagSet": site.tag_list})
    make_writers_policy(calls, site)


def make_writers_policy(calls: Calls, site: Site) -> None:
    """For whoever pushes models, people or CI: to be attached to their role. Pods get another, which only reads."""
    arn = writers_arn(site)
    wanted = json.loads(site.read("iam.model-bucket.write.json"))
    found = calls.ask("iam", "get_policy", ("NoSuchEntity",), PolicyArn=arn)
    if found is None:
        calls.change(
            "iam",
            "create_policy",
            PolicyName=site.writers_policy,
            PolicyDocument=json.dumps(wanted),
            Description=f"push models to {site.bucket}",
            Tags=site.tag_list,
        )
        return
    version = calls.ask("iam", "get_policy_version", PolicyArn=arn, VersionId=found["Policy"]["DefaultVersionId"])
    if version is not None and version["PolicyVersion"]["Document"] != wanted:
        _replace(calls, arn, json.dumps(wanted))


def writers_arn(site: Site) -> str:
    return f"arn:{site.partition}:iam::{site.account}:policy/{site.writers_policy}"


def _replace(calls: Calls, arn: str, document: str) -> None:
    """IAM keeps five versions: those that aren't in force make room."""
    _delete_old_versions(calls, arn)
    calls.change("iam", "create_policy_version", PolicyArn=arn, PolicyDocument=document, SetAsDefault=True)


def _delete_old_versions(calls: Calls, arn: str) -> None:
    for version in calls.ask_all("iam", "list_policy_versions", "Versions", PolicyArn=arn):
        if not version["IsDefaultVersion"]:
            calls.change("iam", "delete_policy_version", PolicyArn=arn, VersionId=version["VersionId"])


def delete_writers_policy(calls: Calls, site: Site) -> None:
    arn = writers_arn(site)
    found = calls.ask("iam", "get_policy", ("NoSuchEntity",), PolicyArn=arn)
    if found is None:
        return
    if found["Policy"].get("AttachmentCount"):
        raise ConfigurationError(f"the policy {site.writers_policy} is still attached: detach it from roles and users")
    _delete_old_versions(calls, arn)
    calls.change("iam", "delete_policy", PolicyArn=arn)


def delete_bucket(calls: Calls, site: Site) -> None:
    """With every version of every object: that is what versioning keeps."""
    name = site.bucket
    if calls.rehearsal:
        calls.change("s3", "delete_objects", Bucket=name, Delete="every version of every object")
    elif calls.ask("s3", "head_bucket", GONE, Bucket=name) is None:
        return
    for kept in ("Versions", "DeleteMarkers"):
        found = calls.ask_all("s3", "list_object_versions", kept, Bucket=name)
        keys = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
        for start in range(0, len(keys), BATCH):
            batch = keys[start : start + BATCH]
            calls.say(f"{len(batch)} of {len(keys)} object versions of {name} are deleted")
            _delete(calls, name, batch)
    calls.change("s3", "delete_bucket", GONE, Bucket=name)


def _delete(calls: Calls, name: str, batch: list[dict[str, str]]) -> None:
    answer = calls.ask("s3", "delete_objects", Bucket=name, Delete={"Objects": batch, "Quiet": True})
    if answer and answer.get("Errors"):
        first = answer["Errors"][0]
        raise ConfigurationError(f"s3://{name}/{first['Key']} can't be deleted: {first['Code']}")

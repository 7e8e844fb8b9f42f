"""The model bucket (private, encrypted, versioned, TLS only) and the IAM policy for pushing models to it."""

import json
from typing import Any

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.aws.installation import Installation
from serve_app.tools.deploy.aws.runner import Runner

NO_BUCKET = ("404", "NoSuchBucket", "NotFound")
NO_POLICY = ("NoSuchEntity",)
KEYS_PER_REQUEST = 1000
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
PRIVATE = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
ENCRYPTED = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}]}


def create_bucket(runner: Runner, installation: Installation) -> None:
    """Settings are written on every run, since an interrupted one may have written half of them."""
    name = installation.bucket
    if runner.get("s3", "head_bucket", NO_BUCKET, Bucket=name) is None:
        create: dict[str, Any] = {"Bucket": name}
        if installation.region != "us-east-1":  # which S3 refuses as a location
            create["CreateBucketConfiguration"] = {"LocationConstraint": installation.region}
        runner.change("s3", "create_bucket", ("BucketAlreadyOwnedByYou",), **create)
    policy = json.dumps(json.loads(installation.read("iam.model-bucket.tls-only.json")))
    settings: dict[str, dict[str, Any]] = {
        "put_public_access_block": {"PublicAccessBlockConfiguration": PRIVATE},
        "put_bucket_encryption": {"ServerSideEncryptionConfiguration": ENCRYPTED},
        "put_bucket_versioning": {"VersioningConfiguration": {"Status": "Enabled"}},
        "put_bucket_lifecycle_configuration": {"LifecycleConfiguration": LIFECYCLE},
        "put_bucket_policy": {"Policy": policy},
        "put_bucket_tagging": {"Tagging": {"TagSet": installation.tags}},
    }
    for operation, parameters in settings.items():
        runner.change("s3", operation, Bucket=name, **parameters)
    _put_writers_policy(runner, installation)


def delete_bucket(runner: Runner, installation: Installation) -> None:
    """With every version of every object, and the policy for pushing to it."""
    name = installation.bucket
    if runner.dry_run:
        runner.change("s3", "delete_objects", Bucket=name, Delete="every version of every object")
    if runner.dry_run or runner.get("s3", "head_bucket", NO_BUCKET, Bucket=name) is not None:
        _delete_objects(runner, name)
        runner.change("s3", "delete_bucket", NO_BUCKET, Bucket=name)
    _delete_writers_policy(runner, installation)


def _delete_objects(runner: Runner, bucket: str) -> None:
    for kind in ("Versions", "DeleteMarkers"):
        found = runner.get_all("s3", "list_object_versions", kind, Bucket=bucket)
        keys = [{"Key": version["Key"], "VersionId": version["VersionId"]} for version in found]
        for start in range(0, len(keys), KEYS_PER_REQUEST):
            batch = keys[start : start + KEYS_PER_REQUEST]
            runner.say(f"deleting {len(batch)} of {len(keys)} object versions of {bucket}")
            answer = runner.get("s3", "delete_objects", Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
            for error in (answer or {}).get("Errors", []):
                raise ConfigurationError(f"can't delete s3://{bucket}/{error['Key']}: {error['Code']}")


def _put_writers_policy(runner: Runner, installation: Installation) -> None:
    """To be attached to the roles of people and CI that push models; pods have a policy that only reads."""
    arn = installation.writers_policy_arn
    wanted = json.loads(installation.read("iam.model-bucket.write.json"))
    policy = runner.get("iam", "get_policy", NO_POLICY, PolicyArn=arn)
    if policy is None:
        runner.change(
            "iam",
            "create_policy",
            PolicyName=installation.writers_policy,
            PolicyDocument=json.dumps(wanted),
            Description=f"push models to {installation.bucket}",
            Tags=installation.tags,
        )
        return
    default = policy["Policy"]["DefaultVersionId"]
    version = runner.get("iam", "get_policy_version", PolicyArn=arn, VersionId=default)
    if version is not None and version["PolicyVersion"]["Document"] != wanted:
        _delete_old_versions(runner, arn)  # IAM keeps at most five
        runner.change(
            "iam", "create_policy_version", PolicyArn=arn, PolicyDocument=json.dumps(wanted), SetAsDefault=True
        )


def _delete_writers_policy(runner: Runner, installation: Installation) -> None:
    arn = installation.writers_policy_arn
    policy = runner.get("iam", "get_policy", NO_POLICY, PolicyArn=arn)
    if policy is None:
        return
    if policy["Policy"].get("AttachmentCount"):
        raise ConfigurationError(
            f"the policy {installation.writers_policy} is still attached: detach it from its roles and users"
        )
    _delete_old_versions(runner, arn)
    runner.change("iam", "delete_policy", PolicyArn=arn)


def _delete_old_versions(runner: Runner, arn: str) -> None:
    for version in runner.get_all("iam", "list_policy_versions", "Versions", PolicyArn=arn):
        if not version["IsDefaultVersion"]:
            runner.change("iam", "delete_policy_version", PolicyArn=arn, VersionId=version["VersionId"])

"""Names of one installation: cluster, region, account and bucket, and kuberay/cluster filled in with them."""

import re
from dataclasses import dataclass
from pathlib import Path

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT

FILES = PROJECT_ROOT / "kuberay" / "cluster"
# The names in kuberay/cluster, which an installation replaces by its own; the account is AWS's example.
CLUSTER, REGION, ACCOUNT = "serve-app-eks", "us-west-2", "111122223333"
REPOSITORY_PREFIX = "serve-app"


@dataclass(frozen=True, slots=True)
class Installation:
    cluster: str
    region: str
    account: str
    bucket: str
    partition: str = "aws"

    @property
    def registry(self) -> str:
        domain = "amazonaws.com.cn" if self.partition == "aws-cn" else "amazonaws.com"
        return f"{self.account}.dkr.ecr.{self.region}.{domain}/{REPOSITORY_PREFIX}"

    @property
    def karpenter_stack(self) -> str:
        return f"Karpenter-{self.cluster}"

    @property
    def cluster_stack(self) -> str:
        """The name that eksctl gives the cluster's stack."""
        return f"eksctl-{self.cluster}-cluster"

    def node_group_stack(self, group: str) -> str:
        """The name that eksctl gives a node group's stack."""
        return f"eksctl-{self.cluster}-nodegroup-{group}"

    @property
    def writers_policy(self) -> str:
        return f"{self.cluster}-models-write"

    @property
    def writers_policy_arn(self) -> str:
        return f"arn:{self.partition}:iam::{self.account}:policy/{self.writers_policy}"

    @property
    def tags(self) -> list[dict[str, str]]:
        tags = {"app.kubernetes.io/part-of": "serve-app", "serve-app/cluster": self.cluster}
        return [{"Key": key, "Value": value} for key, value in tags.items()]

    def read(self, name: str) -> str:
        """A file of kuberay/cluster with the names of this installation."""
        return self.fill((FILES / name).read_text())

    def fill(self, text: str) -> str:
        """In one pass, so that what was just filled in is not replaced; longest first, as one name contains others."""
        names = {
            default_bucket(CLUSTER, ACCOUNT, REGION): self.bucket,
            CLUSTER: self.cluster,
            REGION: self.region,
            ACCOUNT: self.account,
            "arn:aws:": f"arn:{self.partition}:",
        }
        pattern = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
        return re.sub(pattern, lambda match: names[match[0]], text)


def default_bucket(cluster: str, account: str, region: str) -> str:
    return f"{cluster}-models-{account}-{region}"


def default_kubeconfig(cluster: str) -> Path:
    """A file for this cluster alone, so that ~/.kube/config is not changed."""
    return Path.home() / ".kube" / f"config.{cluster}"


def check_names(cluster: str, region: str, bucket: str | None) -> None:
    """Refuse names that AWS would refuse halfway through an installation."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,26}[a-z0-9]", cluster):
        raise ConfigurationError(
            f"--cluster-name must have 2 to 28 characters of a-z, 0-9 and -, start with a letter and end with a letter "
            f"or digit, got {cluster!r}; roles and the bucket are named after it"
        )
    if not re.fullmatch(r"[a-z]{2,3}(-[a-z]+)+-[0-9]", region):
        raise ConfigurationError(f"--region must be an AWS region such as {REGION}, got {region!r}")
    if bucket is not None and not re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", bucket):
        raise ConfigurationError(f"--bucket must have 3 to 63 characters of a-z, 0-9 and -, got {bucket!r}")

"""Where an installation lives: account, region and cluster, the names that follow, and the files of kuberay/cluster."""

import re
from dataclasses import dataclass
from pathlib import Path

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT

FILES = PROJECT_ROOT / "kuberay" / "cluster"
# What kuberay/cluster says where an installation says something else; the account is AWS's own example.
CLUSTER, REGION, ACCOUNT = "serve-app-eks", "us-west-2", "111122223333"
REPOSITORY_PREFIX = "serve-app"


@dataclass(frozen=True, slots=True)
class Site:
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
    def stack(self) -> str:
        return f"Karpenter-{self.cluster}"

    @property
    def cluster_stack(self) -> str:
        """eksctl's, as are those of its node groups."""
        return f"eksctl-{self.cluster}-cluster"

    def group_stack(self, group: str) -> str:
        return f"eksctl-{self.cluster}-nodegroup-{group}"

    @property
    def writers_policy(self) -> str:
        return f"{self.cluster}-models-write"

    @property
    def tags(self) -> dict[str, str]:
        return {"app.kubernetes.io/part-of": "serve-app", "serve-app/cluster": self.cluster}

    @property
    def tag_list(self) -> list[dict[str, str]]:
        return [{"Key": key, "Value": value} for key, value in self.tags.items()]

    def read(self, name: str) -> str:
        """A file of kuberay/cluster as it is for this installation."""
        return self.fill((FILES / name).read_text())

    def fill(self, text: str) -> str:
        """In one pass, so that nothing is replaced in what was just put in; longest first, since one holds others."""
        ours = {
            bucket_of(CLUSTER, ACCOUNT, REGION): self.bucket,
            CLUSTER: self.cluster,
            REGION: self.region,
            ACCOUNT: self.account,
            "arn:aws:": f"arn:{self.partition}:",
        }
        committed = sorted(ours, key=len, reverse=True)
        return re.sub("|".join(map(re.escape, committed)), lambda found: ours[found[0]], text)


def bucket_of(cluster: str, account: str, region: str) -> str:
    return f"{cluster}-models-{account}-{region}"


def check_names(cluster: str, region: str, bucket: str | None) -> None:
    """Before anything is asked or made: a name that AWS would refuse halfway."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,26}[a-z0-9]", cluster):
        raise ConfigurationError(
            f"--cluster-name {cluster!r}: 2 to 28 of a-z, 0-9 and -, from a letter to a letter or digit; "
            "roles and the bucket are named after it"
        )
    if not re.fullmatch(r"[a-z]{2,3}(-[a-z]+)+-[0-9]", region):
        raise ConfigurationError(f"--region {region!r} is no region; us-west-2 is one")
    if bucket is not None and not re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", bucket):
        raise ConfigurationError(f"--bucket {bucket!r}: 3 to 63 of a-z, 0-9 and -")


def default_kubeconfig(cluster: str) -> Path:
    """A file of its own: nobody's ~/.kube/config is changed."""
    return Path.home() / ".kube" / f"config.{cluster}"

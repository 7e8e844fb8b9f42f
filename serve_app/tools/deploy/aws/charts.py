"""The Helm charts that a cluster gets: which, which version, from where, and in which order."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chart:
    """`values` is a file of kuberay/cluster/helm; a repository that begins with oci:// names the chart too."""

    release: str
    version: str
    repository: str
    namespace: str
    values: str | None = None

    @property
    def source(self) -> list[str]:
        """Its arguments to Helm."""
        if self.repository.startswith("oci://"):
            return [self.repository]
        return [self.release, "--repo", self.repository]


MONITORING = "monitoring"
OPERATOR = "kuberay-system"

# Prometheus first: the others bring monitors of the kinds that it defines. Karpenter's kinds come before Karpenter.
CHARTS = (
    Chart(
        "aws-load-balancer-controller",
        "3.6.0",
        "https://aws.github.io/eks-charts",
        "kube-system",
        "aws-load-balancer-controller.yaml",
    ),
    Chart(
        "kube-prometheus-stack",
        "88.6.2",
        "https://prometheus-community.github.io/helm-charts",
        MONITORING,
        "kube-prometheus-stack.yaml",
    ),
    Chart("karpenter-crd", "1.15.0", "oci://public.ecr.aws/karpenter/karpenter-crd", "kube-system"),
    Chart("karpenter", "1.15.0", "oci://public.ecr.aws/karpenter/karpenter", "kube-system", "karpenter.yaml"),
    Chart(
        "nvidia-device-plugin",
        "0.19.3",
        "https://nvidia.github.io/k8s-device-plugin",
        "kube-system",
        "nvidia-device-plugin.yaml",
    ),
    Chart(
        "dcgm-exporter", "4.8.3", "https://nvidia.github.io/dcgm-exporter/helm-charts", MONITORING, "dcgm-exporter.yaml"
    ),
    Chart(
        "kuberay-operator",
        "1.7.0",
        "https://ray-project.github.io/kuberay-helm",
        OPERATOR,
        "kuberay-operator.yaml",
    ),
)

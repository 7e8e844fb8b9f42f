"""Add-ons that run in the cluster beside the service: Helm charts, the default disk class, Karpenter's node pools."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_app.tools.deploy.aws.installation import Installation
from serve_app.tools.deploy.aws.objects import ClusterObjects
from serve_app.tools.deploy.aws.runner import Runner
from serve_app.tools.deploy.scenarios.scenario import Scenario

KARPENTER_API = "karpenter.sh/v1"
NODE_CLASS_API = "karpenter.k8s.aws/v1"
NODES_TIMEOUT_S = 1800
VOLUMES_TIMEOUT_S = 300
SYSTEM, MONITORING, OPERATOR = "kube-system", "monitoring", "kuberay-system"


@dataclass(frozen=True, slots=True)
class Chart:
    """`values` is a file of kuberay/cluster/helm; an oci:// repository includes the chart's name."""

    release: str
    version: str
    repository: str
    namespace: str
    has_values: bool = True

    @property
    def values(self) -> str | None:
        return f"helm/{self.release}.yaml" if self.has_values else None

    @property
    def source(self) -> list[str]:
        oci = self.repository.startswith("oci://")
        return [self.repository] if oci else [self.release, "--repo", self.repository]


# In this order: the others use the kinds that Prometheus's and Karpenter's charts define.
KARPENTER_CHARTS = "oci://public.ecr.aws/karpenter"
CHARTS = (
    Chart("aws-load-balancer-controller", "3.6.0", "https://aws.github.io/eks-charts", SYSTEM),
    Chart("kube-prometheus-stack", "88.6.2", "https://prometheus-community.github.io/helm-charts", MONITORING),
    Chart("karpenter-crd", "1.15.0", f"{KARPENTER_CHARTS}/karpenter-crd", SYSTEM, has_values=False),
    Chart("karpenter", "1.15.0", f"{KARPENTER_CHARTS}/karpenter", SYSTEM),
    Chart("nvidia-device-plugin", "0.19.3", "https://nvidia.github.io/k8s-device-plugin", SYSTEM),
    Chart("dcgm-exporter", "4.8.3", "https://nvidia.github.io/dcgm-exporter/helm-charts", MONITORING),
    Chart("kuberay-operator", "1.7.0", "https://ray-project.github.io/kuberay-helm", OPERATOR),
)


class AddOns:
    def __init__(
        self,
        runner: Runner,
        objects: ClusterObjects,
        installation: Installation,
        scenario: Scenario,
        kubeconfig: Path,
    ) -> None:
        self._runner = runner
        self._objects = objects
        self._installation = installation
        self._scenario = scenario
        self._kubeconfig = kubeconfig

    def install(self, vpc: str) -> None:
        self._objects.apply_yaml(self._installation.read("storageclass.gp3.yaml"))
        for chart in CHARTS:
            self._repair(chart)
            self._upgrade(chart, vpc)
        self._objects.apply_yaml(self._installation.read("karpenter.nodeclasses.yaml"))
        self._objects.apply_yaml(self._installation.read("karpenter.nodepools.yaml"))

    def delete_nodes(self) -> None:
        """Before Karpenter is uninstalled, as only Karpenter terminates the instances of a deleted pool."""
        self._delete_and_wait(KARPENTER_API, "NodePool", "NodeClaim", "Karpenter has terminated its nodes")
        self._delete_and_wait(
            NODE_CLASS_API, "EC2NodeClass", "EC2NodeClass", "Karpenter has deleted its instance profiles"
        )

    def uninstall(self, namespaces: Sequence[str]) -> None:
        """Charts in reverse order, then the disks claimed in `namespaces`, while the driver that deletes them runs."""
        for chart in reversed(CHARTS):
            if self._runner.dry_run or self._status(chart):
                self._helm("uninstall", chart, "--wait")
        claiming = (self._scenario.monitoring_namespace, *namespaces)
        for namespace in claiming:
            self._objects.delete_all("v1", "PersistentVolumeClaim", namespace)
        disks = ", ".join(self._disks(claiming)) or f"of {' and '.join(claiming)}"
        self._runner.wait(f"the disks {disks} are deleted", lambda: not self._disks(claiming), VOLUMES_TIMEOUT_S)

    def _delete_and_wait(self, api_version: str, kind: str, dependent: str, goal: str) -> None:
        self._objects.delete_all(api_version, kind)
        self._runner.wait(goal, lambda: not self._objects.list(api_version, dependent), NODES_TIMEOUT_S)

    def _disks(self, namespaces: Sequence[str]) -> list[str]:
        """Disks that are deleted with their claims; a retained one is left alone."""
        found = []
        for volume in self._objects.list("v1", "PersistentVolume"):
            claim = volume["spec"].get("claimRef") or {}
            deleted = volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"
            if deleted and claim.get("namespace") in namespaces:
                found.append(f"{volume['metadata']['name']} ({claim['namespace']}/{claim['name']})")
        return found

    def _upgrade(self, chart: Chart, vpc: str) -> None:
        options = ["--create-namespace", "--wait", "--timeout=15m", f"--version={chart.version}"]
        if chart.release == "aws-load-balancer-controller":
            options.append(f"--set=vpcId={vpc}")
        if chart.release == "kuberay-operator":
            options.append(f"--set=watchNamespace={{{','.join(self._watched(chart))}}}")
        argv = ["helm", "upgrade", "--install", chart.release, *chart.source, *self._cluster_options(chart), *options]
        if chart.values:
            values = self._installation.read(chart.values)
            self._runner.run([*argv, "--values=-"], values, f"kuberay/cluster/{chart.values}")
        else:
            self._runner.run(argv)

    def _repair(self, chart: Chart) -> None:
        """Helm refuses to upgrade a release that a killed run left pending."""
        status = self._status(chart)
        if status == "pending-install":
            self._helm("uninstall", chart, "--wait")
        elif status in ("pending-upgrade", "pending-rollback"):
            self._helm("rollback", chart, "--wait")

    def _watched(self, chart: Chart) -> list[str]:
        """Also the namespaces of services that were installed before: those that it forgets, nobody looks after."""
        argv = ["helm", "get", "values", chart.release, *self._cluster_options(chart), "--output=json"]
        try:
            before = (json.loads(self._runner.output(argv) or "{}") or {}).get("watchNamespace") or []
        except ValueError:
            before = []
        return sorted({*before, self._scenario.namespace})

    def _status(self, chart: Chart) -> str:
        """Empty where the release doesn't exist."""
        argv = ["helm", "status", chart.release, *self._cluster_options(chart), "--output=json"]
        try:
            return str(json.loads(self._runner.output(argv) or "{}").get("info", {}).get("status", ""))
        except ValueError:
            return ""

    def _helm(self, command: str, chart: Chart, *options: str) -> None:
        self._runner.run(["helm", command, chart.release, *self._cluster_options(chart), *options])

    def _cluster_options(self, chart: Chart) -> list[str]:
        chosen = {MONITORING: self._scenario.monitoring_namespace, OPERATOR: self._scenario.operator_namespace}
        return [f"--namespace={chosen.get(chart.namespace, chart.namespace)}", f"--kubeconfig={self._kubeconfig}"]


def vpc_of(cluster: dict[str, Any]) -> str:
    return str(cluster["resourcesVpcConfig"]["vpcId"])

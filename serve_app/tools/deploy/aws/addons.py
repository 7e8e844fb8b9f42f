"""What runs in a cluster beside the service: Helm charts, the default disk, Karpenter's pools."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serve_app.tools.deploy.aws.calls import Calls
from serve_app.tools.deploy.aws.charts import CHARTS, MONITORING, OPERATOR, Chart
from serve_app.tools.deploy.aws.kube import Kube
from serve_app.tools.deploy.aws.site import Site
from serve_app.tools.deploy.scenarios.scenario import Scenario

KARPENTER = "karpenter.sh/v1"
CLASSES = "karpenter.k8s.aws/v1"
NODES_TIMEOUT_S = 1800
VOLUMES_TIMEOUT_S = 300


class AddOns:
    def __init__(self, calls: Calls, kube: Kube, site: Site, scenario: Scenario, kubeconfig: Path) -> None:
        self._calls = calls
        self._kube = kube
        self._site = site
        self._scenario = scenario
        self._kubeconfig = f"--kubeconfig={kubeconfig}"

    def install(self, description: dict[str, Any]) -> None:
        self._kube.apply_text(self._site.read("storageclass.gp3.yaml"))
        for chart in CHARTS:
            self._mend(chart)
            self._upgrade(chart, description)
        self._kube.apply_text(self._site.read("karpenter.nodeclasses.yaml"))
        self._kube.apply_text(self._site.read("karpenter.nodepools.yaml"))

    def end_nodes(self) -> None:
        """While Karpenter runs: it ends the machines of a pool that is deleted; without it they run and cost on."""
        self._kube.delete_all(KARPENTER, "NodePool")
        self._calls.wait(
            "Karpenter has ended its nodes", lambda: not self._kube.names(KARPENTER, "NodeClaim"), NODES_TIMEOUT_S
        )
        self._kube.delete_all(CLASSES, "EC2NodeClass")
        self._calls.wait(
            "its instance profiles are gone", lambda: not self._kube.names(CLASSES, "EC2NodeClass"), NODES_TIMEOUT_S
        )

    def uninstall(self, namespaces: Sequence[str]) -> None:
        """Last first; then the disks, those of `namespaces` too, while the driver that deletes them is still there."""
        for chart in reversed(CHARTS):
            if self._calls.rehearsal or self._status(chart):
                argv = ["helm", "uninstall", chart.release, f"--namespace={self._namespace(chart)}", "--wait"]
                self._calls.run([*argv, self._kubeconfig])
        spaces = (self._scenario.monitoring_namespace, *namespaces)
        for namespace in spaces:
            self._kube.delete_all("v1", "PersistentVolumeClaim", namespace)
        disks = ", ".join(self._kube.disks(spaces)) or f"of {' and '.join(spaces)}"
        self._calls.wait(f"the disks {disks} are gone", lambda: not self._kube.disks(spaces), VOLUMES_TIMEOUT_S)

    def _upgrade(self, chart: Chart, description: dict[str, Any]) -> None:
        argv = ["helm", "upgrade", "--install", chart.release, *chart.source]
        argv += [f"--version={chart.version}", f"--namespace={self._namespace(chart)}", "--create-namespace"]
        argv += ["--wait", "--timeout=15m", self._kubeconfig, *self._settings(chart, description)]
        if chart.values is None:
            self._calls.run(argv)
            return
        told = f"kuberay/cluster/helm/{chart.values}"
        self._calls.run([*argv, "--values=-"], self._site.read(f"helm/{chart.values}"), told)

    def _settings(self, chart: Chart, description: dict[str, Any]) -> list[str]:
        if chart.release == "aws-load-balancer-controller":
            return [f"--set=vpcId={description['resourcesVpcConfig']['vpcId']}"]
        if chart.release == "kuberay-operator":
            return [f"--set=watchNamespace={{{self._scenario.namespace}}}"]
        return []

    def _mend(self, chart: Chart) -> None:
        """A run that was killed leaves a release `pending`, which Helm doesn't touch again by itself."""
        status = self._status(chart)
        where = [f"--namespace={self._namespace(chart)}", self._kubeconfig]
        if status == "pending-install":
            self._calls.run(["helm", "uninstall", chart.release, "--wait", *where])
        elif status in ("pending-upgrade", "pending-rollback"):
            self._calls.run(["helm", "rollback", chart.release, "--wait", *where])

    def _status(self, chart: Chart) -> str:
        """Empty where there is no such release."""
        argv = ["helm", "status", chart.release, f"--namespace={self._namespace(chart)}", "--output=json"]
        answer = self._calls.answer_of([*argv, self._kubeconfig])
        try:
            return str(json.loads(answer or "{}").get("info", {}).get("status", ""))
        except ValueError:
            return ""

    def _namespace(self, chart: Chart) -> str:
        own = {MONITORING: self._scenario.monitoring_namespace, OPERATOR: self._scenario.operator_namespace}
        return own.get(chart.namespace, chart.namespace)

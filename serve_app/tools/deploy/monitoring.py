"""Monitoring manifests from configs/monitoring: the PodMonitor, alert rules and Grafana dashboards."""

import json
from pathlib import Path

import yaml

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.deploy.api.objects import Manifest
from serve_app.tools.deploy.api.target import labels_of
from serve_app.tools.deploy.yaml_format import to_yaml

SOURCE = PROJECT_ROOT / "configs" / "monitoring"
GENERATED = PROJECT_ROOT / "kuberay" / "cluster" / "monitoring.yaml"
DASHBOARD = {"grafana_dashboard": "1"}  # Grafana's sidecar loads ConfigMaps with this label
RELEASE = {"release": "kube-prometheus-stack"}
HEADER = """\
# What watches the service: scrapes of Ray's pods, alerts, Grafana's dashboards. Prerequisite: kube-prometheus-stack.
# Generated from configs/monitoring by `python -m serve_app.tools.deploy.monitoring`; change it there.
"""


def monitoring_manifests(namespace: str, labels: dict[str, str]) -> list[Manifest]:
    return [
        _pod_monitor(namespace, labels),
        _rules(namespace, labels),
        *(_dashboard(path, namespace, labels) for path in sorted((SOURCE / "grafana" / "dashboards").glob("*.json"))),
    ]


def ray_dashboards(namespace: str, labels: dict[str, str]) -> list[Manifest]:
    """Those that Ray's own dashboard embeds, of the version that is installed here, which is that of the images."""
    from ray.dashboard.modules.metrics import grafana_dashboard_factory as factory

    made = {
        "default": factory.generate_default_grafana_dashboard(),
        "serve": factory.generate_serve_grafana_dashboard(),
        "serve-deployment": factory.generate_serve_deployment_grafana_dashboard(),
        "serve-llm": factory.generate_serve_llm_grafana_dashboard(),
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"ray-dashboard-{name}", "namespace": namespace, "labels": labels | DASHBOARD},
            "data": {f"ray-{name}.json": json.dumps(json.loads(text), separators=(",", ":"))},
        }
        for name, (text, _uid) in made.items()
    ]


def _pod_monitor(namespace: str, labels: dict[str, str]) -> Manifest:
    manifest: Manifest = yaml.safe_load((SOURCE / "podmonitor.yaml").read_text())
    manifest["metadata"] |= {"namespace": namespace, "labels": labels | manifest["metadata"]["labels"]}
    return manifest


def _rules(namespace: str, labels: dict[str, str]) -> Manifest:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "serve-app", "namespace": namespace, "labels": labels | RELEASE},
        "spec": yaml.safe_load((SOURCE / "alerts.yaml").read_text()),
    }


def _dashboard(path: Path, namespace: str, labels: dict[str, str]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"serve-app-dashboard-{path.stem}", "namespace": namespace, "labels": labels | DASHBOARD},
        "data": {f"serve-app-{path.name}": path.read_text()},
    }


def monitoring_document(namespace: str, labels: dict[str, str]) -> str:
    return HEADER + to_yaml(monitoring_manifests(namespace, labels))


if __name__ == "__main__":
    GENERATED.write_text(monitoring_document("serve-app", labels_of("serve-app")))

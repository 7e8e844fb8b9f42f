"""What watches the service on Kubernetes, made of configs/monitoring: scrapes, alerts and dashboards as manifests."""

from pathlib import Path
from typing import Any

import yaml

from serve_app.settings import PROJECT_ROOT

SOURCE = PROJECT_ROOT / "configs" / "monitoring"
GENERATED = PROJECT_ROOT / "kuberay" / "cluster" / "monitoring.yaml"
DASHBOARD = {"grafana_dashboard": "1"}  # Grafana's sidecar loads what carries it
RELEASE = {"release": "kube-prometheus-stack"}
HEADER = """\
# What watches the service: scrapes of Ray's pods, alerts, Grafana's dashboards. Prerequisite: kube-prometheus-stack.
# Generated from configs/monitoring by `python -m serve_app.deploy.monitoring`, which a test compares; change it there.
"""

Manifest = dict[str, Any]


def monitoring_manifests(namespace: str, labels: dict[str, str]) -> list[Manifest]:
    return [
        _pod_monitor(namespace, labels),
        _rules(namespace, labels),
        *(_dashboard(path, namespace, labels) for path in sorted((SOURCE / "grafana" / "dashboards").glob("*.json"))),
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


class _Dumper(yaml.SafeDumper):
    """Texts of many lines as they are, not as one quoted line."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def monitoring_document(namespace: str, labels: dict[str, str]) -> str:
    manifests = monitoring_manifests(namespace, labels)
    options: dict[str, Any] = {"sort_keys": False, "width": 120, "allow_unicode": True, "explicit_start": True}
    return HEADER + str(yaml.dump_all(manifests, Dumper=_Dumper, **options))


def default_labels(instance: str = "serve-app") -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "serve-app",
        "app.kubernetes.io/instance": instance,
        "app.kubernetes.io/managed-by": "serve-app-deploy",
    }


if __name__ == "__main__":
    GENERATED.write_text(monitoring_document("serve-app", default_labels()))

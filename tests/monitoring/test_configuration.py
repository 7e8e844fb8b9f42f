"""configs/monitoring: Prometheus accepts it, alerts fire when they should, dashboards are complete.

tests/kuberay/test_cluster.py validates what is made of it for Kubernetes.
"""

import json
import re
import subprocess
from itertools import combinations
from pathlib import Path

import yaml

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.launch.monitor import MONITORING, find

DASHBOARDS = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
METRIC = re.compile(r"\bray_(serve_app_[a-z_]+?)(?:_total|_bucket|_sum|_count)?\b(?=[{\s)\[]|$)")


def promtool(*arguments):
    ran = subprocess.run([find("promtool"), *arguments], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def read(path):
    return yaml.safe_load((MONITORING / path).read_text())


def alerts():
    return {rule["alert"]: rule["expr"] for group in read("alerts.yaml")["groups"] for rule in group["rules"]}


def test_prometheus_accepts_the_configuration_and_its_rules():
    promtool("check", "config", str(MONITORING / "prometheus.yaml"))
    promtool("check", "rules", str(MONITORING / "alerts.yaml"))


def test_every_alert_fires_on_its_fault_and_not_on_similar_conditions():
    rules = Path(__file__).with_name("alerts.test.yaml")
    promtool("test", "rules", str(rules))
    cases = yaml.safe_load(rules.read_text())["tests"]
    assert {test["alertname"] for case in cases for test in case["alert_rule_test"]} == set(alerts())


def test_the_metrics_of_this_project_that_queries_name_exist():
    panels = [panel for path in DASHBOARDS for panel in json.loads(path.read_text())["panels"]]
    queries = [*alerts().values(), *(target["expr"] for panel in panels for target in panel["targets"])]
    names = {name for query in queries for name in METRIC.findall(query)}
    sources = "".join(path.read_text() for path in (PROJECT_ROOT / "serve_app").rglob("*.py"))
    assert len(names) > 10
    assert [name for name in names if f'"{name}"' not in sources] == []


def test_dashboards_are_complete_and_their_panels_do_not_overlap():
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text())
        assert dashboard["uid"] == f"serve-app-{path.stem}"
        assert dashboard["title"].startswith("serve_app / ")
        panels = dashboard["panels"]
        assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
        for panel in panels:
            assert panel["datasource"]["uid"] == "${datasource}"
            assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])
            assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        for one, other in combinations([panel["gridPos"] for panel in panels], 2):
            beside = one["x"] >= other["x"] + other["w"] or other["x"] >= one["x"] + one["w"]
            assert beside or one["y"] >= other["y"] + other["h"] or other["y"] >= one["y"] + one["h"], path


def test_tritons_metrics_get_the_same_names_in_a_cluster_as_locally():
    local = read("prometheus.yaml")["scrape_configs"][0]["metric_relabel_configs"]
    endpoint, *_ = read("podmonitor.yaml")["spec"]["podMetricsEndpoints"]
    keys = {"source_labels": "sourceLabels", "target_label": "targetLabel"}
    renamed = [{keys.get(key, key): value for key, value in rule.items()} for rule in local]
    assert renamed == endpoint["metricRelabelings"]


def test_grafana_is_provisioned_with_prometheus_and_the_dashboards():
    (source,) = read("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://localhost:9090", True)
    provider, *_ = read("grafana/provisioning/dashboards/serve_app.yaml")["providers"]
    assert provider["options"]["path"] == "$SERVE_APP_DASHBOARDS"

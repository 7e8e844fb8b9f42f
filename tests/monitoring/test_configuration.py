"""What stands in configs/monitoring: Prometheus takes it, alerts fire on what they are for, dashboards are whole."""

import json
import re
import subprocess
from itertools import combinations
from pathlib import Path

import jsonschema
import pytest
import yaml

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.launch.monitor import MONITORING, find

DASHBOARDS = sorted((MONITORING / "grafana" / "dashboards").glob("*.json"))
CRDS = PROJECT_ROOT.parent / "shared" / "crds"
SOURCES = "".join(path.read_text() for path in (PROJECT_ROOT / "serve_app").rglob("*.py"))
OURS = re.compile(r"\bray_(serve_app_[a-z_]+?)(?:_total|_bucket|_sum|_count)?\b(?=[{\s)\[]|$)")


def promtool(*arguments):
    ran = subprocess.run([find("promtool"), *arguments], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def queries():
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield path.stem, panel["title"], target["expr"]
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield "alerts", rule["alert"], rule["expr"]


def test_prometheus_takes_the_configuration_and_its_rules():
    promtool("check", "config", str(MONITORING / "prometheus.yaml"))
    promtool("check", "rules", str(MONITORING / "alerts.yaml"))


def test_each_alert_fires_on_what_it_is_for_and_stays_silent_on_what_resembles_it():
    rules = Path(__file__).with_name("alerts.test.yaml")
    promtool("test", "rules", str(rules))
    tested = {
        test["alertname"] for case in yaml.safe_load(rules.read_text())["tests"] for test in case["alert_rule_test"]
    }
    assert tested == {title for where, title, _ in queries() if where == "alerts"}


def test_our_own_metrics_that_are_asked_for_exist():
    asked = {name for _, _, query in queries() for name in OURS.findall(query)}
    assert len(asked) > 10
    assert [name for name in asked if f'"{name}"' not in SOURCES] == []


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_whole(path):
    document = json.loads(path.read_text())
    assert document["uid"] == f"serve-app-{path.stem}"
    assert document["title"].startswith("serve_app / ")
    panels = document["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations((panel["gridPos"] for panel in panels), 2):
        apart = one["x"] >= other["x"] + other["w"] or other["x"] >= one["x"] + one["w"]
        assert apart or one["y"] >= other["y"] + other["h"] or other["y"] >= one["y"] + one["h"]


def test_triton_metrics_get_the_same_names_in_a_cluster_as_here():
    here = yaml.safe_load((MONITORING / "prometheus.yaml").read_text())["scrape_configs"][0]["metric_relabel_configs"]
    (endpoint,) = pod_monitor()["spec"]["podMetricsEndpoints"]
    names = {"source_labels": "sourceLabels", "target_label": "targetLabel"}
    assert [{names.get(key, key): value for key, value in rule.items()} for rule in here] == endpoint[
        "metricRelabelings"
    ]


def pod_monitor():
    return yaml.safe_load((MONITORING / "podmonitor.yaml").read_text())


@pytest.mark.skipif(not CRDS.is_dir(), reason="the definitions lie beside the project, where it is made")
def test_the_pod_monitor_is_what_its_definition_asks_for():
    definition = yaml.safe_load((CRDS / "monitoring.coreos.com_podmonitors.yaml").read_text())
    (version,) = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]
    jsonschema.validate(pod_monitor(), schema)
    broken = pod_monitor()
    broken["spec"]["selector"] = "ray"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


def test_grafana_finds_dashboards_and_prometheus_by_its_provisioning():
    provisioning = MONITORING / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text())["datasources"]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://localhost:9090", True)
    providers = yaml.safe_load((provisioning / "dashboards" / "serve_app.yaml").read_text())["providers"]
    assert providers[0]["options"]["path"] == "$SERVE_APP_DASHBOARDS"

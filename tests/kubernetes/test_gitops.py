"""The Helm chart and the Kustomize bases give what `scripts/deploy render` gives."""

import json
import os
import subprocess

import pytest
import yaml

from serve_app.tools.deploy.scenarios.files import CHART
from serve_app.tools.deploy.scenarios.scenario import scenario_names
from tests.kubernetes.cluster import places

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]
MANIFESTS = places.ROOT / "kuberay" / "manifests"
# Keys that the chart has as values, with what stands for them in a value's place.
OVERRIDES = {
    "name": "mine",
    "images.registry": "registry.example/serve-app",
    "images.tag": "2.1",
    "images.pull_policy": "Always",
    "operator_namespace": "operators",
    "monitoring_namespace": "watching",
    "deletion_delay_s": "7",
    "environment.A_SWITCH": "yes",
    "workers.routers.min": "3",
    "workers.routers.memory": "7Gi",
    "load_balancer.internal": "false",
    "load_balancer.vpc": "10.0.0.0/8",
    "models.url": "s3://mine/models",
    "keys.secret": "my-keys",
}


def objects(text):
    """By kind and name; the order of variables doesn't matter."""
    found = [one for one in yaml.safe_load_all(text) if one]
    for one in found:
        sort_variables(one)
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def sort_variables(value):
    for key, below in value.items() if isinstance(value, dict) else enumerate(value):
        if key == "env":
            below.sort(key=lambda one: one["name"])
        if isinstance(below, dict | list):
            sort_variables(below)


def helm(*arguments, expect=0):
    command = [places.BIN / "helm", "template", "release", CHART, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == expect, ended.stderr
    return ended


def values_of(overrides):
    values = {}
    for key, text in overrides.items():
        *parents, last = key.split(".")
        below = values
        for part in parents:
            below = below.setdefault(part, {})
        below[last] = text if parents == ["environment"] else yaml.safe_load(text)
    return values


@pytest.mark.parametrize("scenario", scenario_names())
def test_the_chart_gives_what_render_gives(deploy, scenario, tmp_path):
    values = ("--namespace=serve-app", f"--values={CHART / 'values' / f'{scenario}.yaml'}")
    assert objects(helm(*values).stdout) == objects(deploy("render", scenario).out)
    kept = {key for key in OVERRIDES if key.split(".")[0] in (CHART / "values" / f"{scenario}.yaml").read_text()}
    chosen = {key: OVERRIDES[key] for key in sorted(kept)}
    mine = tmp_path / "mine.yaml"
    mine.write_text(json.dumps(values_of(chosen)))
    sets = [part for key, text in chosen.items() for part in ("--set", f"{key}={text}")]
    changed = helm("--namespace=elsewhere", *values[1:], f"--values={mine}").stdout
    assert objects(changed) == objects(deploy("render", scenario, "--namespace", "elsewhere", *sets).out)


def test_the_chart_takes_another_serve_configuration_and_refuses_an_unknown_scenario(tmp_path):
    mine = tmp_path / "serve.yaml"
    mine.write_text("applications:\n  - name: mine # kept\n")
    found = objects(helm("--namespace=serve-app", f"--set-file=serveConfigV2={mine}").stdout)
    assert found["RayService", "serve-app"]["spec"]["serveConfigV2"] == mine.read_text()
    assert 'no scenario "nope"; known: local-cpu' in helm("--set=scenario=nope", expect=1).stderr
    without = objects(helm("--namespace=serve-app", "--set=createNamespace=false").stdout)
    assert not [kind for kind, _ in without if kind == "Namespace"]


@pytest.mark.parametrize("scenario", scenario_names())
def test_a_kustomize_base_gives_what_render_gives_and_takes_images_of_its_own(deploy, kubernetes, scenario, tmp_path):
    base = kubernetes.kubectl("kustomize", str(MANIFESTS / scenario))
    assert objects(base.stdout) == objects(deploy("render", scenario).out), base.stderr
    image = {"local-cpu": "cpu", "llm-gpu": "llm"}.get(scenario, "vision")
    images = [{"name": f"serve-app/{image}", "newName": f"registry.example/{image}", "newTag": "7"}]
    path = os.path.relpath(MANIFESTS / scenario, tmp_path)
    content = {"resources": [path], "images": images, "namespace": "elsewhere"}
    (tmp_path / "kustomization.yaml").write_text(json.dumps(content))
    found = kubernetes.kubectl("kustomize", str(tmp_path)).stdout
    assert f"image: registry.example/{image}:7" in found
    assert f"image: serve-app/{image}:" not in found
    assert {one["metadata"].get("namespace", "elsewhere") for one in objects(found).values()} == {"elsewhere"}

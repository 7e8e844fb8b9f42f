"""Scenarios and manifests as files: kuberay/manifests/<scenario>/rayservice.yaml, with a header comment."""

import textwrap
from pathlib import Path

import yaml

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.deploy.manifests import render
from serve_app.tools.deploy.scenarios.scenario import Scenario, read_scenario
from serve_app.tools.deploy.yaml_format import WIDTH, ManifestDumper, to_yaml

KUSTOMIZATION = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [rayservice.yaml]\n"
CHART = PROJECT_ROOT / "kuberay" / "chart"
SMALLEST = "local-cpu"  # needs nothing of its own: the values of a chart unless others are given


def file_of(scenario: Scenario) -> Path:
    return PROJECT_ROOT / "kuberay" / "manifests" / scenario.scenario / "rayservice.yaml"


def text_of(scenario: Scenario) -> str:
    """The whole file: purpose, prerequisites, source, and the objects."""
    lines = textwrap.wrap(scenario.purpose, WIDTH)
    for need in scenario.prerequisites:
        lines += textwrap.wrap(f"needs: {need}", WIDTH, subsequent_indent="  ")
    source = f"kuberay/scenarios/{scenario.scenario}.yaml and {scenario.config}"
    made = f"Made by `scripts/deploy render {scenario.scenario} --write` from {source}: change those."
    lines += textwrap.wrap(made, WIDTH)
    return "".join(f"# {line}\n" for line in lines) + to_yaml(render(scenario))


def keep_scenario(scenario: Scenario, path: Path) -> None:
    """Writes a scenario with its overrides to a file that every command accepts instead of a name."""
    content = scenario.model_dump(mode="json", exclude_defaults=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.dump(content, Dumper=ManifestDumper, sort_keys=False, width=WIDTH, allow_unicode=True))


def write(scenario: Scenario) -> Path:
    if scenario != read_scenario(scenario.scenario):
        raise ConfigurationError(
            f"the scenario differs from kuberay/scenarios/{scenario.scenario}.yaml: change that file first"
        )
    path = file_of(scenario)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text_of(scenario))
    path.with_name("kustomization.yaml").write_text(KUSTOMIZATION)
    return path

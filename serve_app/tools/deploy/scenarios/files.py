"""Manifests as files: kuberay/rayservice.<scenario>.yaml, each with what it is for at its head."""

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.deploy.manifests import Manifest, render
from serve_app.tools.deploy.scenarios.scenario import Scenario, read_scenario

WIDTH = 110


class ManifestDumper(yaml.SafeDumper):
    """Kubernetes' way of writing: no aliases, text of several lines as it is, lists below their keys indented."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        return super().represent_mapping(tag, mapping, flow_style=_is_short(mapping.items()))

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, flow_style=_is_short(enumerate(sequence)))


def _is_short(items: Iterable[tuple[Any, Any]]) -> bool:
    """What fits on a line, and is as easy to read there: an environment variable, a port, a list of verbs."""
    found = list(items)
    plain = all(isinstance(value, str | int | float) and "\n" not in str(value) for _, value in found)
    return plain and len(str(found)) < WIDTH


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


ManifestDumper.add_representer(str, _text)


def to_yaml(manifests: list[Manifest]) -> str:
    return yaml.dump_all(
        manifests, Dumper=ManifestDumper, sort_keys=False, width=1000, allow_unicode=True, explicit_start=True
    )


def file_of(scenario: Scenario) -> Path:
    return PROJECT_ROOT / "kuberay" / f"rayservice.{scenario.scenario}.yaml"


def text_of(scenario: Scenario) -> str:
    """The whole file: purpose, what must be there before, where it comes from, and the objects."""
    lines = textwrap.wrap(scenario.purpose, WIDTH)
    for need in scenario.prerequisites:
        lines += textwrap.wrap(f"needs: {need}", WIDTH, subsequent_indent="  ")
    source = f"kuberay/scenarios/{scenario.scenario}.yaml and {scenario.config}"
    made = f"Made by `scripts/deploy render {scenario.scenario} --write` from {source}: change those."
    lines += textwrap.wrap(made, WIDTH)
    return "".join(f"# {line}\n" for line in lines) + to_yaml(render(scenario))


def keep_scenario(scenario: Scenario, path: Path) -> None:
    """A scenario with what was set, as a file that every command takes in place of its name."""
    said = scenario.model_dump(mode="json", exclude_defaults=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.dump(said, Dumper=ManifestDumper, sort_keys=False, width=WIDTH, allow_unicode=True))


def write(scenario: Scenario) -> Path:
    if scenario != read_scenario(scenario.scenario):
        raise ConfigurationError(
            f"kuberay/scenarios/{scenario.scenario}.yaml says something else: change that, then write"
        )
    path = file_of(scenario)
    path.write_text(text_of(scenario))
    return path

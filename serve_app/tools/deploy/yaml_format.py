"""How YAML is written: without aliases, text of several lines as blocks; manifests in Kubernetes' usual style."""

from collections.abc import Iterable
from typing import Any

import yaml

WIDTH = 110


class BlockDumper(yaml.SafeDumper):
    """Without aliases, and with text of several lines as blocks, so that a diff compares it line by line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class ManifestDumper(BlockDumper):
    """Lists are indented below their keys, and short mappings and lists stay on one line."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        return super().represent_mapping(tag, mapping, flow_style=_is_short(mapping.items()))

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, flow_style=_is_short(enumerate(sequence)))


def _is_short(items: Iterable[tuple[Any, Any]]) -> bool:
    """Such as an environment variable, a port or a list of verbs."""
    found = list(items)
    plain = all(isinstance(value, str | int | float) and "\n" not in str(value) for _, value in found)
    return plain and len(str(found)) < WIDTH


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


BlockDumper.add_representer(str, _represent_text)


def to_yaml(manifests: list[dict[str, Any]]) -> str:
    return yaml.dump_all(
        manifests, Dumper=ManifestDumper, sort_keys=False, width=1000, allow_unicode=True, explicit_start=True
    )

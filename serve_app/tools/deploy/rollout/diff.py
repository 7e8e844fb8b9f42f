"""What applying would change, as a unified diff without the values of Secrets."""

import copy
import difflib
from collections.abc import Sequence

import yaml

from serve_app.tools.deploy.api.objects import Manifest, label
from serve_app.tools.deploy.rollout.apply import DryRun, content_of
from serve_app.tools.deploy.status.report import Line
from serve_app.tools.deploy.yaml_format import BlockDumper

COLOURS = {"+++": "bold", "---": "bold", "+": "green", "-": "red", "@": "cyan"}


def diff_lines(dry_runs: Sequence[DryRun], removed: Sequence[Manifest] = ()) -> list[Line]:
    lines: list[Line] = []
    for one in dry_runs:
        lines += _diff(one.manifest, one.before, one.after or one.manifest)
    for manifest in removed:
        lines += _diff(manifest, manifest, None)
    return lines


def _diff(manifest: Manifest, before: Manifest | None, after: Manifest | None) -> list[Line]:
    old, new = _hidden(before, after)
    name = label(manifest)
    text = difflib.unified_diff(_lines(old), _lines(new), f"live {name}", f"new {name}", lineterm="")
    return [Line(one, _colour(one)) for one in text]


def _colour(line: str) -> str:
    return next((style for start, style in COLOURS.items() if line.startswith(start)), "")


def _lines(content: Manifest | None) -> list[str]:
    if content is None:
        return []
    return yaml.dump(content, Dumper=BlockDumper, sort_keys=True, allow_unicode=True, width=10_000).splitlines()


def _hidden(before: Manifest | None, after: Manifest | None) -> tuple[Manifest | None, Manifest | None]:
    old, new = (content_of(one) if one else None for one in (before, after))
    if (old or new or {}).get("kind") != "Secret":
        return old, new
    return _masked(old, new, "old value"), _masked(new, old, "new value")


def _masked(secret: Manifest | None, other: Manifest | None, word: str) -> Manifest | None:
    """Only shows whether a value changes."""
    if secret is None:
        return None
    shown = copy.deepcopy(secret)
    (shown["metadata"].get("annotations") or {}).pop("kubectl.kubernetes.io/last-applied-configuration", None)
    for part in ("data", "stringData"):
        theirs = ((other or {}).get(part)) or {}
        values = shown.get(part) or {}
        for key, value in values.items():
            values[key] = "*** (unchanged)" if theirs.get(key) == value else f"*** ({word})"
    return shown

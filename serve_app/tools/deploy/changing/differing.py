"""What applying would change, as a unified diff that shows no Secret's values."""

import copy
import difflib
from collections.abc import Sequence
from typing import Any

import yaml

from serve_app.tools.deploy.api.objects import Manifest, label
from serve_app.tools.deploy.changing.applying import Trial, content_of
from serve_app.tools.deploy.looking.telling import Line

COLOURS = {"+++": "bold", "---": "bold", "+": "green", "-": "red", "@": "cyan"}


def difference(trials: Sequence[Trial], removed: Sequence[Manifest] = ()) -> list[Line]:
    """Nothing where nothing differs."""
    lines: list[Line] = []
    for trial in trials:
        lines += _between(trial.manifest, trial.before, trial.after or trial.manifest)
    for manifest in removed:
        lines += _between(manifest, manifest, None)
    return lines


def _between(manifest: Manifest, before: Manifest | None, after: Manifest | None) -> list[Line]:
    old, new = _hidden(before, after)
    name = label(manifest)
    text = difflib.unified_diff(_lines(old), _lines(new), f"live {name}", f"wanted {name}", lineterm="")
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
    return _masked(old, new, "value before"), _masked(new, old, "value after")


def _masked(secret: Manifest | None, other: Manifest | None, word: str) -> Manifest | None:
    """A value that changes is still seen to change."""
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


class BlockDumper(yaml.SafeDumper):
    """Texts of several lines as such, so that a diff of them is by line; nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: BlockDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


BlockDumper.add_representer(str, _text)

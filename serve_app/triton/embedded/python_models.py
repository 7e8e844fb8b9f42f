"""Which models of a repository run in the Python backend, and how many stubs they will have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_BACKEND = re.compile(r"""["']?backend["']?\s*:\s*["']python["']""")
_COUNT = re.compile(r"""["']?count["']?\s*:\s*(\d+)""")
_COMMENT = re.compile(r"#.*")


def stub_count(repositories: Iterable[str], names: Iterable[str] | None = None) -> int:
    """Stubs that the named models (all of them for None) will start; an estimate from their files."""
    wanted = None if names is None else set(names)
    return sum(
        _stubs_of(folder)
        for repository in repositories
        for folder in _folders(Path(repository))
        if wanted is None or folder.name in wanted
    )


def stub_count_of_load(repositories: Iterable[str], name: str, parameters: Mapping[str, Any] | None) -> int:
    """The same for one model that is loaded with parameters."""
    config = (parameters or {}).get("config")
    if isinstance(config, str) and '"backend"' in config:
        return _instances(config) if _BACKEND.search(config) else 0
    return stub_count(repositories, [name])


def _folders(repository: Path) -> list[Path]:
    try:
        return sorted(path for path in repository.iterdir() if path.is_dir())
    except OSError:  # a repository that isn't there, or isn't local, is Triton's to report
        return []


def _stubs_of(folder: Path) -> int:
    try:
        config = _COMMENT.sub("", (folder / "config.pbtxt").read_text())
    except (OSError, UnicodeDecodeError):
        config = ""
    if _BACKEND.search(config) or ("backend" not in config and any(folder.glob("*/model.py"))):
        return _instances(config)
    return 0


def _instances(config: str) -> int:
    return max(1, sum(int(count) for count in _COUNT.findall(config)))

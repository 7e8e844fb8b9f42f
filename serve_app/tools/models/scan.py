"""What a folder holds that can be pushed: links followed, what is nobody's model left out, everything else refused."""

import hashlib
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from serve_app.errors import ConfigurationError, InvalidRequestError
from serve_app.tools.models.manifest import Manifest, StoredFile, StoredModel

# of a writer that is at work or was interrupted, and what Python makes by itself
UNFINISHED = (".part", ".partial", ".tmp", ".lock", ".incomplete", ".swp", "~", ".pyc")
SUMMED_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Scan:
    """The manifest of a folder, and where each content is read."""

    manifest: Manifest
    sources: dict[str, Path]
    left_out: tuple[Path, ...]


@dataclass(slots=True)
class _Tree:
    """What one entry at the top has below it."""

    files: list[tuple[str, Path]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


def scan(folder: Path) -> Scan:
    if not folder.is_dir():
        raise InvalidRequestError(f"{folder} is no folder")
    left_out: list[Path] = []
    trees: dict[str, _Tree] = {}
    for entry in _entries(folder, left_out):
        trees[entry.name] = tree = _Tree()
        if _is_folder(entry):
            _walk(entry, "", tree, left_out, (folder.resolve(), entry.resolve()))
        else:
            tree.files.append(("", entry))
    if not any(tree.files for tree in trees.values()):
        raise InvalidRequestError(f"{folder} has no files to push")
    paths = [path for tree in trees.values() for _, path in tree.files]
    with ThreadPoolExecutor(SUMMED_AT_ONCE) as pool:
        sums = dict(zip(paths, pool.map(_summed, paths), strict=True))
    models = [_model(name, tree, sums) for name, tree in sorted(trees.items())]
    sources = {digest: path for path, (digest, _, _) in sums.items()}
    return Scan(Manifest(models=tuple(models)), sources, tuple(left_out))


def _entries(folder: Path, left_out: list[Path]) -> Iterator[Path]:
    """In an order that is always the same."""
    try:
        found = sorted(folder.iterdir())
    except OSError as problem:
        raise _unreadable(folder, problem) from None
    for entry in found:
        if entry.name.startswith(".") or entry.name.endswith(UNFINISHED) or entry.name == "__pycache__":
            left_out.append(entry)
        elif not entry.name.isprintable():
            raise InvalidRequestError(f"{str(entry)!r}: a name with such characters can't be pushed: rename it")
        else:
            yield entry


def _walk(folder: Path, path: str, tree: _Tree, left_out: list[Path], above: tuple[Path, ...]) -> None:
    before = len(tree.files) + len(tree.folders)
    for entry in _entries(folder, left_out):
        below = f"{path}/{entry.name}" if path else entry.name
        if not _is_folder(entry):
            tree.files.append((below, entry))
            continue
        real = entry.resolve()
        if real in above:
            raise InvalidRequestError(f"{entry} links to {real}, a folder above it, and would never end: remove it")
        _walk(entry, below, tree, left_out, (*above, real))
    if path and before == len(tree.files) + len(tree.folders):
        tree.folders.append(path)


def _is_folder(entry: Path) -> bool:
    """Through links; a dangling one, a pipe or a device is nothing to push."""
    try:
        mode = entry.stat().st_mode
    except FileNotFoundError:
        raise InvalidRequestError(f"{entry} links to {os.readlink(entry)}, which isn't there: remove it") from None
    except OSError as problem:
        raise _unreadable(entry, problem) from None
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise InvalidRequestError(f"{entry} is neither a file nor a folder: remove it")
    return stat.S_ISDIR(mode)


def _summed(path: Path) -> tuple[str, int, bool]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return digest, file.tell(), bool(os.fstat(file.fileno()).st_mode & stat.S_IXUSR)
    except OSError as problem:
        raise _unreadable(path, problem) from None


def _model(name: str, tree: _Tree, sums: dict[Path, tuple[str, int, bool]]) -> StoredModel:
    files = []
    for path, source in sorted(tree.files):
        digest, size, executable = sums[source]
        files.append(StoredFile(path=path, size=size, sha256=digest, executable=executable))
    return StoredModel(name=name, files=tuple(files), folders=tuple(sorted(tree.folders)))


def _unreadable(path: Path, problem: OSError) -> ConfigurationError:
    reason = (problem.strerror or str(problem)).lower()
    return ConfigurationError(f"{path} can't be read: {reason}; make it readable, or move it away")

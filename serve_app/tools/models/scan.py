"""The files of a local folder that can be pushed: follows links, skips temporary files, refuses everything else."""

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from serve_app.errors import ConfigurationError, InvalidRequestError
from serve_app.tools.models.manifest import CHUNK_BYTES, Chunk, Manifest, StoredFile, sha256_of

TEMPORARY = (".part", ".partial", ".tmp", ".lock", ".incomplete", ".swp", "~", ".pyc")
THREADS = 4


@dataclass(frozen=True, slots=True)
class Scan:
    """The manifest of a folder, where each chunk can be read, and what was skipped."""

    manifest: Manifest
    sources: dict[str, tuple[Chunk, Path]]
    skipped: list[Path]


def scan(folder: Path) -> Scan:
    if not folder.is_dir():
        raise InvalidRequestError(f"{folder} is not a folder")
    skipped: list[Path] = []
    found = list(_walk(folder, "", skipped, (folder.resolve(),)))
    if not any(entry.is_file() for _, entry in found):
        raise InvalidRequestError(f"{folder} has no files to push")
    with ThreadPoolExecutor(THREADS) as pool:
        files = list(pool.map(_describe, *zip(*found, strict=True)))
    sources = {
        chunk.sha256: (chunk, entry) for file, (_, entry) in zip(files, found, strict=True) for chunk in file.chunks()
    }
    return Scan(Manifest(files=tuple(files)), sources, skipped)


def _walk(folder: Path, prefix: str, skipped: list[Path], above: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    """Yield paths in the repository and on the disk; that of an empty folder ends with a slash."""
    empty = True
    for entry in _entries(folder, skipped):
        empty = False
        if not _is_folder(entry):
            yield prefix + entry.name, entry
            continue
        real = entry.resolve()
        if real in above:
            raise InvalidRequestError(f"{entry} links to {real}, a folder that contains it: remove the link")
        yield from _walk(entry, f"{prefix}{entry.name}/", skipped, (*above, real))
    if empty and prefix:
        yield prefix, folder


def _entries(folder: Path, skipped: list[Path]) -> Iterator[Path]:
    try:
        found = sorted(folder.iterdir())
    except OSError as problem:
        raise _unreadable(folder, problem) from None
    for entry in found:
        if entry.name.startswith(".") or entry.name.endswith(TEMPORARY) or entry.name == "__pycache__":
            skipped.append(entry)
        elif not entry.name.isprintable():
            raise InvalidRequestError(f"{str(entry)!r} has unprintable characters in its name: rename it")
        else:
            yield entry


def _is_folder(entry: Path) -> bool:
    try:
        mode = entry.stat().st_mode
    except FileNotFoundError:
        raise InvalidRequestError(f"{entry} links to {os.readlink(entry)}, which does not exist: remove it") from None
    except OSError as problem:
        raise _unreadable(entry, problem) from None
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise InvalidRequestError(f"{entry} is neither a file nor a folder: remove it")
    return stat.S_ISDIR(mode)


def _describe(path: str, entry: Path) -> StoredFile:
    if path.endswith("/"):
        return StoredFile(path=path)
    digests = []
    try:
        with entry.open("rb") as file:
            while content := file.read(CHUNK_BYTES):
                digests.append(sha256_of(content))
            size, executable = file.tell(), bool(os.fstat(file.fileno()).st_mode & stat.S_IXUSR)
    except OSError as problem:
        raise _unreadable(entry, problem) from None
    return StoredFile(path=path, size=size, sha256=tuple(digests), executable=executable)


def _unreadable(path: Path, problem: OSError) -> ConfigurationError:
    reason = (problem.strerror or str(problem)).lower()
    return ConfigurationError(f"cannot read {path}: {reason}: correct its permissions, or move it away")

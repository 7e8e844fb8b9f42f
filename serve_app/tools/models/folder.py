"""The folder that a pull writes to: `current` leads to a snapshot, whose unchanged models and versions are shared."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from serve_app.errors import ConfigurationError, ModelLoadError
from serve_app.tools.models.manifest import DIGEST, Manifest, StoredFile, digest_of, group, short


@dataclass(frozen=True)
class Entry:
    """A version of a model, or another file or folder at its top: these change independently."""

    path: str
    files: tuple[StoredFile, ...]

    @cached_property
    def name(self) -> str:
        """The same on the disk only for the same content at the same path."""
        return f"{Path(self.path).name}-{short(digest_of(self.files))}"

    @property
    def model(self) -> str:
        return self.path.split("/")[0]

    def inside(self, file: StoredFile) -> str:
        """The file's path below the entry; empty where the entry is the file itself."""
        return file.path[len(self.path) :].strip("/")


def entries_of(files: tuple[StoredFile, ...]) -> list[Entry]:
    return [Entry(path, found) for path, found in group(files, 2).items()]


class Folder:
    """All links are relative, so that the folder can be mounted anywhere.

    PATH/current → .store/DIGEST             one link, replaced atomically
    PATH/.store/DIGEST/MODEL → ../MODEL-…    shared by all snapshots that have the same model
    PATH/.store/MODEL-…/1 → ../1-…           shared by all models that have the same version
    PATH/.store/1-…/model.plan               the files
    PATH/.store/DIGEST.json                  the manifest of a snapshot
    PATH/.pull/                              lock, and entries that are being downloaded

    Triton's poll compares times of change (ctime) too. A hard link would change them for both of its names; a symbolic
    link leaves its target alone, so that a loaded version stays loaded.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.unfinished = path / ".pull" / "unfinished"
        self._current = path / "current"
        self._store = path / ".store"

    def prepare(self) -> None:
        for folder in (self.unfinished, self._store):
            folder.mkdir(parents=True, exist_ok=True)
        if self._current.exists() and not self._current.is_symlink():
            raise ConfigurationError(f"{self._current} was not made by a pull: pull into another folder, or remove it")

    @contextmanager
    def try_lock(self) -> Iterator[bool]:
        """Yield whether this process may write here; a lock ends with its process."""
        lock = os.open(self.path / ".pull" / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield True
        except BlockingIOError:
            yield False
        finally:
            os.close(lock)

    @property
    def current_digest(self) -> str | None:
        try:
            digest = Path(os.readlink(self._current)).name
        except OSError:
            return None
        return digest if re.match(DIGEST, digest) else None

    @property
    def current_manifest(self) -> Manifest | None:
        return next((manifest for manifest in self.manifests() if manifest.digest == self.current_digest), None)

    def manifests(self) -> Iterator[Manifest]:
        """Of the snapshots that are here; unreadable ones are downloaded again."""
        for path in sorted(self._store.glob("*.json")):
            try:
                manifest = Manifest.parse(path.read_bytes(), path.name)
            except (OSError, ModelLoadError):
                continue
            if manifest.digest == path.stem:
                yield manifest

    def path_of(self, entry: Entry) -> Path:
        return self._store / entry.name

    def _model_path(self, name: str, files: tuple[StoredFile, ...]) -> Path:
        entries = entries_of(files)
        if entries[0].path == name:  # a file, or an empty folder
            return self.path_of(entries[0])
        return self._store / f"{name}-{short(digest_of(files))}"

    def has(self, entry: Entry) -> bool:
        """An entry is complete when it comes here; sizes show whether a file was removed since."""
        return all(is_complete(self.path_of(entry) / entry.inside(file), file) for file in entry.files)

    def add(self, entry: Entry) -> None:
        target = self.path_of(entry)
        self._remove(target)  # an incomplete one
        os.rename(self.unfinished / entry.name, target)

    def switch(self, manifest: Manifest) -> None:
        """Readers see the previous snapshot or this one, each complete."""
        for name, files in manifest.models.items():
            entries = entries_of(files)
            if entries[0].path != name:
                links = {Path(entry.path).name: self.path_of(entry) for entry in entries}
                self._link_all(self._model_path(name, files), links)
        models = {name: self._model_path(name, files) for name, files in manifest.models.items()}
        snapshot = self._store / manifest.digest
        self._link_all(snapshot, models)
        self._renew_times(manifest)
        fresh = self.unfinished / "manifest"
        fresh.write_bytes(manifest.content)
        os.replace(fresh, snapshot.with_suffix(".json"))
        fresh = self.unfinished / "current"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(snapshot.relative_to(self.path))
        os.replace(fresh, self._current)
        self.remove_unfinished(set())

    def _link_all(self, folder: Path, links: dict[str, Path]) -> None:
        if folder.is_dir() and all((folder / name).exists() for name in links):
            return
        fresh = self.unfinished / f"links-{folder.name}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        for name, target in links.items():
            (fresh / name).symlink_to(Path("..", target.name))
        self._remove(folder)
        os.rename(fresh, folder)

    def _renew_times(self, manifest: Manifest) -> None:
        """Make what differs from the current snapshot newer than it, and touch nothing else.

        Triton reloads a model whose newest time is later than before, so it would miss an older version that returns.
        """
        before = self.current_manifest
        for name, files in manifest.models.items():
            old = before.models.get(name) if before else None
            if old and old != files:
                kept = {self.path_of(entry) for entry in entries_of(old)}
                paths = {self._model_path(name, files), *(self.path_of(entry) for entry in entries_of(files))}
                for path in paths - kept:
                    os.utime(path)

    def remove_others(self, *digests: str | None) -> None:
        """Keep these snapshots and what they lead to."""
        kept = set()
        for manifest in self.manifests():
            if manifest.digest in digests:
                kept |= {self._store / manifest.digest, self._store / f"{manifest.digest}.json"}
                kept |= {self._model_path(name, files) for name, files in manifest.models.items()}
                kept |= {self.path_of(entry) for entry in entries_of(manifest.files)}
        for path in self._store.iterdir():
            if path not in kept:
                self._remove(path)

    def remove_unfinished(self, kept: set[str]) -> None:
        for path in self.unfinished.iterdir():
            if path.name not in kept:
                self._remove(path)

    def _remove(self, path: Path) -> None:
        """Rename a folder first: nobody may find half of it under its name."""
        if path.is_dir() and not path.is_symlink():
            trash = self.path / ".pull" / f"trash-{path.name}"
            shutil.rmtree(trash, ignore_errors=True)
            os.rename(path, trash)
            shutil.rmtree(trash)
        else:
            path.unlink(missing_ok=True)


def is_complete(path: Path, file: StoredFile) -> bool:
    try:
        return path.is_dir() if file.is_folder else path.is_file() and path.stat().st_size == file.size
    except OSError:
        return False

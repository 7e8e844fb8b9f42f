"""The folder that a pull keeps: `current` → a snapshot → models → their parts, which no later pull writes to."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from serve_app.errors import ConfigurationError, ModelLoadError
from serve_app.tools.models.manifest import DIGEST, Manifest, StoredFile, StoredModel, short
from serve_app.tools.models.parts import Part, all_parts_of, parts_of

CURRENT, SNAPSHOTS, MODELS, PARTS, WORK = "current", ".snapshots", ".models", ".parts", ".pull"


class Shelf:
    """Links are relative, so that the folder may be mounted anywhere.

    FOLDER/current → .snapshots/DIGEST                      one link, replaced at once
    FOLDER/.snapshots/DIGEST/MODEL → ../../.models/MODEL-…  shared by all snapshots that have this very model
    FOLDER/.models/MODEL-…/1 → ../../.parts/MODEL/1-…       shared by all models of this name that have this very part
    FOLDER/.parts/MODEL/1-…/model.plan                      the files
    FOLDER/.pull/                                           what a pull needs: lock, manifests, downloads, buildings

    Triton's poll looks at times of change (ctime) too, which a hard link would renew at both of its ends; a symbolic
    link leaves alone what it leads to, so that a version that was loaded stays loaded.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects = folder / WORK / "objects"
        self.building = folder / WORK / "building"
        self._manifests = folder / WORK / "manifests"
        self._lock: int | None = None

    def prepare(self) -> None:
        for path in (self.objects, self.building, self._manifests):
            path.mkdir(parents=True, exist_ok=True)
        for name in (SNAPSHOTS, MODELS, PARTS):
            (self.folder / name).mkdir(exist_ok=True)
        current = self.folder / CURRENT
        if current.exists() and not current.is_symlink():
            raise ConfigurationError(
                f"{current} is not a link that a pull made: pull into another folder, or remove it"
            )

    def lock(self) -> bool:
        """Whether this process is now the one that pulls here; the lock ends with it, however that ends."""
        if self._lock is None:
            self._lock = os.open(self.folder / WORK / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def current_digest(self) -> str | None:
        try:
            digest = Path(os.readlink(self.folder / CURRENT)).name
        except OSError:
            return None
        return digest if re.match(DIGEST, digest) else None

    @property
    def current_manifest(self) -> Manifest | None:
        return self._manifest(self.current_digest)

    def _manifest(self, digest: str | None) -> Manifest | None:
        """None for one that isn't there, or can't be read any more: it is fetched again then."""
        try:
            content = (self._manifests / f"{digest}.json").read_bytes()
            manifest = Manifest.parse(content, str(digest))
        except (OSError, ModelLoadError):
            return None
        return manifest if manifest.digest == digest else None

    def manifests(self) -> Iterator[Manifest]:
        """Of the snapshots that are here."""
        for path in sorted(self._manifests.glob("*.json")):
            if manifest := self._manifest(path.stem):
                yield manifest

    def path_of(self, part: Part) -> Path:
        return self.folder / PARTS / part.model / part.folder_name

    def building_of(self, part: Part) -> Path:
        return self.building / part.model / part.folder_name

    def folder_of(self, model: StoredModel) -> Path:
        """Of a model that is a file, that file."""
        if model.is_file:
            return self.path_of(parts_of(model)[0])
        return self.folder / MODELS / f"{model.name}-{short(model.digest)}"

    def has(self, part: Part) -> bool:
        """A part is whole when it comes here; sizes tell whether somebody took something away since."""
        path = self.path_of(part)
        folders = all((path / folder).is_dir() for folder in part.folders)
        return folders and all(is_there(path / file.path, file) for file in part.files)

    def take(self, part: Part) -> None:
        """What was built is on the shelf from now on."""
        target = self.path_of(part)
        target.parent.mkdir(exist_ok=True)
        if os.path.lexists(target):
            self._discard(target)  # not whole any more
        os.rename(self.building_of(part), target)

    def switch(self, manifest: Manifest) -> None:
        """Readers see the snapshot before or this one, whole."""
        for model in manifest.models:
            if not model.is_file:
                links = {part.name: self.path_of(part) for part in parts_of(model)}
                self._link_folder(self.folder_of(model), links)
        snapshot = self.folder / SNAPSHOTS / manifest.digest
        self._link_folder(snapshot, {model.name: self.folder_of(model) for model in manifest.models})
        _replace(self._manifests / f"{manifest.digest}.json", manifest.content)
        self._link(self.folder / CURRENT, snapshot)

    def _link_folder(self, folder: Path, links: dict[str, Path]) -> None:
        """A folder of links comes whole, and stays as it is where it is right."""
        if folder.is_dir() and all((folder / name).exists() for name in links):
            return
        fresh = self.building / f"links-{folder.name}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        for name, target in links.items():
            (fresh / name).symlink_to(Path("..", "..", target.relative_to(self.folder)))
        if folder.is_dir():
            self._discard(folder)
        os.rename(fresh, folder)

    def _link(self, link: Path, target: Path) -> None:
        fresh = link.with_name(f".{link.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target.relative_to(self.folder))
        os.replace(fresh, link)

    def sweep(self, *kept: str | None) -> None:
        """Remove all but these snapshots, and what none of them leads to."""
        for snapshot in (self.folder / SNAPSHOTS).iterdir():
            if snapshot.name not in kept:
                self._discard(snapshot)
        for path in self._manifests.iterdir():
            if path.stem not in kept:
                path.unlink()
        manifests = list(self.manifests())
        folders = {self.folder_of(model) for manifest in manifests for model in manifest.models}
        folders |= {self.path_of(part) for manifest in manifests for part in all_parts_of(manifest)}
        for path in (*(self.folder / MODELS).iterdir(), *(self.folder / PARTS).glob("*/*")):
            if path not in folders:
                self._discard(path)

    def clear(self) -> None:
        """Downloads and buildings of snapshots that nobody asks for any more."""
        for path in (*self.objects.iterdir(), *self.building.iterdir()):
            self._discard(path)

    def _discard(self, path: Path) -> None:
        """Out of sight first: nobody finds half of a folder under its name."""
        if path.is_dir() and not path.is_symlink():
            trash = self.folder / WORK / f"trash-{path.name}"
            shutil.rmtree(trash, ignore_errors=True)
            os.rename(path, trash)
            shutil.rmtree(trash)
        else:
            path.unlink(missing_ok=True)


def is_there(path: Path, file: StoredFile) -> bool:
    try:
        return path.is_file() and path.stat().st_size == file.size
    except OSError:
        return False


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    os.replace(fresh, path)

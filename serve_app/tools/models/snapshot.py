"""A snapshot's parts made from what is on the disk and what has to be fetched."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from serve_app.tools.models.download import PART, Wanted
from serve_app.tools.models.manifest import Manifest, StoredFile
from serve_app.tools.models.parts import Part, all_parts_of, parts_of
from serve_app.tools.models.shelf import Shelf, is_there

READ_ONLY, READ_ONLY_PROGRAM = 0o444, 0o555


class Builder:
    """What one snapshot lacks; a building that was interrupted goes on where it ended."""

    def __init__(self, shelf: Shelf, manifest: Manifest) -> None:
        self._shelf = shelf
        self.manifest = manifest
        self.missing = [part for part in all_parts_of(manifest) if not shelf.has(part)]
        self._content = dict(self._known())  # where a content lies on the disk, by its sum

    @property
    def models(self) -> list[str]:
        """Those that a part is missing of."""
        return sorted({part.model for part in self.missing})

    def _known(self) -> Iterator[tuple[str, Path]]:
        shelved = [part for manifest in (*self._shelf.manifests(), self.manifest) for part in all_parts_of(manifest)]
        places = [(part, self._shelf.path_of(part)) for part in shelved]
        places += [(part, self._shelf.building_of(part)) for part in self.missing]
        for part, place in places:
            for file in part.files:
                if is_there(place / file.path, file):
                    yield file.sha256, place / file.path

    def _lacking(self) -> Iterator[tuple[Part, StoredFile]]:
        for part in self.missing:
            for file in part.files:
                if not is_there(self._shelf.building_of(part) / file.path, file):
                    yield part, file

    @property
    def to_fetch(self) -> dict[str, Wanted]:
        return {
            file.sha256: Wanted(file.sha256, file.size, part.called(file))
            for part, file in self._lacking()
            if file.sha256 not in self._content and not (self._shelf.objects / file.sha256).exists()
        }

    @property
    def needed_bytes(self) -> int:
        """What the disk must still have room for."""
        needed = sum(file.size for _, file in self._lacking())
        for digest in {file.sha256 for _, file in self._lacking()} - set(self._content):
            for path in (self._shelf.objects / digest, self._shelf.objects / f"{digest}{PART}"):
                needed -= path.stat().st_size if path.exists() else 0
        return needed

    def build(self) -> None:
        """After everything was fetched."""
        for part in self.missing:
            building = self._shelf.building_of(part)
            for folder in part.folders:
                (building / folder).mkdir(parents=True, exist_ok=True)
            for file in part.files:
                target = building / file.path
                target.parent.mkdir(parents=True, exist_ok=True)
                if not is_there(target, file):
                    self._place(file, target)
        for part in self.missing:
            self._shelf.take(part)

    def _place(self, file: StoredFile, target: Path) -> None:
        """Each place has a file of its own: what becomes of one is not seen at another."""
        fetched = self._shelf.objects / file.sha256
        if file.sha256 in self._content:
            fetched = target.with_name(f"{target.name}{PART}")
            shutil.copyfile(self._content[file.sha256], fetched)
        fetched.chmod(READ_ONLY_PROGRAM if file.executable else READ_ONLY)
        os.replace(fetched, target)
        self._content[file.sha256] = target


def renew_times(shelf: Shelf, manifest: Manifest) -> None:
    """Make what differs from the current snapshot newer than it, and touch nothing else.

    Triton takes a model for changed when its newest time is later than before, so that a part that was here all along
    would go unseen when it comes back.
    """
    before = shelf.current_manifest
    for model in manifest.models:
        old = before.model(model.name) if before else None
        if old is None or old.digest == model.digest:
            continue
        there = {shelf.path_of(part) for part in parts_of(old)}
        for path in {shelf.folder_of(model), *(shelf.path_of(part) for part in parts_of(model))} - there:
            if path.exists():
                os.utime(path)

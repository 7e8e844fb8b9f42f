"""The parts of a model: each version folder and each file at its top, which change apart from each other."""

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

from serve_app.tools.models.manifest import Manifest, StoredFile, StoredModel, short


@dataclass(frozen=True)
class Part:
    """Paths start at the part, and are empty where the part itself is a file or an empty folder."""

    model: str
    name: str
    files: tuple[StoredFile, ...]
    folders: tuple[str, ...]

    @cached_property
    def folder_name(self) -> str:
        """What it is called on the disk: the same for the same content at the same place, and only for that."""
        files = [[file.path, file.sha256, file.executable] for file in self.files]
        digest = hashlib.sha256(json.dumps([files, self.folders]).encode()).hexdigest()
        return f"{self.name}-{short(digest)}"

    @property
    def is_file(self) -> bool:
        return any(file.path == "" for file in self.files)

    def called(self, file: StoredFile) -> str:
        """What a message calls a file of it."""
        return "/".join(part for part in (self.model, self.name, file.path) if part)


def parts_of(model: StoredModel) -> tuple[Part, ...]:
    """A model that is a file is its own only part."""
    files: dict[str, list[StoredFile]] = defaultdict(list)
    folders: dict[str, list[str]] = defaultdict(list)
    for file in model.files:
        name, _, rest = file.path.partition("/")
        files[name].append(file.model_copy(update={"path": rest}))
    for folder in model.folders:
        name, _, rest = folder.partition("/")
        folders[name].append(rest)
    names = sorted({*files, *folders})
    return tuple(Part(model.name, name, tuple(files[name]), tuple(folders[name])) for name in names)


def all_parts_of(manifest: Manifest) -> list[Part]:
    return [part for model in manifest.models for part in parts_of(model)]

"""The manifest of a push: every file with its size and the checksums of its chunks, named by its own checksum."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from serve_app.errors import ModelLoadError

CHUNK_BYTES = 8 << 20  # part of the format: a file is stored as objects of this size, so that any transfer can resume
SHORT = 12  # characters of a digest that people read and folders are named by
DIGEST = r"^[0-9a-f]{64}$"


class Chunk(NamedTuple):
    """A piece of a file, which is one object in the bucket."""

    sha256: str
    offset: int
    size: int


def _inside(path: str) -> str:
    names = path.removesuffix("/").split("/")
    if {"", ".", ".."} & set(names) or not path.isprintable():
        raise ValueError(f"{path!r} is not a path inside the repository")
    return path


class StoredFile(BaseModel):
    """A file, or an empty folder where the path ends with a slash: S3 itself has no folders."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Annotated[str, AfterValidator(_inside)]
    size: int = Field(default=0, ge=0)
    sha256: tuple[Annotated[str, Field(pattern=DIGEST)], ...] = ()
    executable: bool = False

    @model_validator(mode="after")
    def _check_chunks(self) -> "StoredFile":
        if len(self.sha256) != -(-self.size // CHUNK_BYTES) or (self.is_folder and self.size):
            raise ValueError(f"{self.path!r} has {len(self.sha256)} chunks for {self.size} bytes")
        return self

    @property
    def is_folder(self) -> bool:
        return self.path.endswith("/")

    def chunks(self) -> Iterator[Chunk]:
        for offset, digest in zip(range(0, self.size, CHUNK_BYTES), self.sha256, strict=True):
            yield Chunk(digest, offset, min(CHUNK_BYTES, self.size - offset))


class Manifest(BaseModel):
    """The files of a repository. Its first-level entries are the models."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[2] = 2
    files: tuple[StoredFile, ...]

    @model_validator(mode="after")
    def _check_paths(self) -> "Manifest":
        paths = Counter(file.path.removesuffix("/") for file in self.files)
        parents = {str(parent) for path in paths for parent in PurePosixPath(path).parents}
        for path, count in paths.items():
            if count > 1 or path in parents:
                raise ValueError(f"{path!r} is listed twice, or as a file and a folder")
        return self

    @cached_property
    def content(self) -> bytes:
        return _canonical(self)

    @cached_property
    def digest(self) -> str:
        return sha256_of(self.content)

    @cached_property
    def models(self) -> dict[str, tuple[StoredFile, ...]]:
        return group(self.files, 1)

    @property
    def objects(self) -> dict[str, int]:
        """Sizes by checksum; equal content is stored once."""
        return {chunk.sha256: chunk.size for file in self.files for chunk in file.chunks()}

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @classmethod
    def parse(cls, content: bytes, name: str) -> "Manifest":
        """`name` is what an error calls the document."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as problem:
            first = problem.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ModelLoadError(
                f"{name} is not a manifest that this release can read ({where}: {first['msg']}): push again, or use "
                "the release that pushed it"
            ) from None


def group(files: Iterable[StoredFile], depth: int) -> dict[str, tuple[StoredFile, ...]]:
    """Group files by the first `depth` names of their paths: 1 gives models, 2 their versions and other entries."""
    groups: dict[str, list[StoredFile]] = defaultdict(list)
    for file in files:
        groups["/".join(file.path.removesuffix("/").split("/")[:depth])].append(file)
    return {path: tuple(found) for path, found in groups.items()}


def digest_of(files: Iterable[StoredFile]) -> str:
    return sha256_of(b"".join(map(_canonical, files)))


def short(digest: str) -> str:
    return digest[:SHORT]


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _canonical(model: BaseModel) -> bytes:
    values = model.model_dump(mode="json")
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

"""What a push consists of: every model's files with their sums, as one document that is named by its own sum."""

import hashlib
import json
from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from serve_app.errors import ModelLoadError

SHORT = 12  # characters of a digest that people read and folders are named by
DIGEST = r"^[0-9a-f]{64}$"


def inside(path: str) -> str:
    """Refuses what would be written elsewhere."""
    parts = path.split("/")
    if path and ({"", ".", ".."} & set(parts) or not path.isprintable()):
        raise ValueError(f"{path!r} is no path inside a model")
    return path


def one_name(name: str) -> str:
    if not name or "/" in name or name.startswith(".") or not name.isprintable():
        raise ValueError(f"{name!r} is no name of a model")
    return name


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StoredFile(_Part):
    """Its path is empty where the model itself is a file."""

    path: Annotated[str, AfterValidator(inside)]
    size: int = Field(ge=0)
    sha256: str = Field(pattern=DIGEST)
    executable: bool = False


class StoredModel(_Part):
    """A folder at the top of the repository, or a file there; S3 knows no folders, so empty ones are named."""

    name: Annotated[str, AfterValidator(one_name)]
    files: tuple[StoredFile, ...] = ()
    folders: tuple[Annotated[str, AfterValidator(inside)], ...] = ()

    @model_validator(mode="after")
    def _paths_are_apart(self) -> "StoredModel":
        paths = [file.path for file in self.files] + list(self.folders)
        above = {str(parent) for path in paths for parent in PurePosixPath(path).parents} - {"."}
        if (
            len(set(paths)) < len(paths)
            or above & {file.path for file in self.files}
            or ("" in paths and paths != [""])
        ):
            raise ValueError(f"model {self.name!r}: a path is there twice, or is both a file and a folder")
        return self

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(_canonical(self)).hexdigest()

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def versions(self) -> tuple[int, ...]:
        tops = {path.split("/")[0] for path in (*(file.path for file in self.files), *self.folders)}
        return tuple(sorted(int(top) for top in tops if top.isdecimal()))

    @property
    def is_file(self) -> bool:
        return any(file.path == "" for file in self.files)


class Manifest(_Part):
    format: Literal[1] = 1
    models: tuple[StoredModel, ...]

    @model_validator(mode="after")
    def _names_differ(self) -> "Manifest":
        if len({model.name for model in self.models}) < len(self.models):
            raise ValueError("a model is there twice")
        return self

    @cached_property
    def content(self) -> bytes:
        return _canonical(self)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def objects(self) -> dict[str, int]:
        """Sizes by sum: what is the same in several places is stored once."""
        return {file.sha256: file.size for model in self.models for file in model.files}

    @property
    def size(self) -> int:
        return sum(model.size for model in self.models)

    def model(self, name: str) -> StoredModel | None:
        return next((model for model in self.models if model.name == name), None)

    @classmethod
    def parse(cls, content: bytes, name: str) -> "Manifest":
        """`name` is what an error calls the document."""
        try:
            return cls.model_validate_json(content)
        except ValidationError as problem:
            first = problem.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ModelLoadError(
                f"{name} is no manifest that can be read here ({where}: {first['msg']}): push again, or take a newer "
                "release of this command"
            ) from None


def short(digest: str) -> str:
    return digest[:SHORT]


def _canonical(part: _Part) -> bytes:
    values = part.model_dump(mode="json")
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

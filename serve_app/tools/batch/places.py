"""Where pictures and tables are: a local path or an s3:// URL, on pyarrow's file systems."""

import uuid
from dataclasses import dataclass
from pathlib import Path

from pyarrow import ArrowException
from pyarrow.fs import FileSelector, FileSystem, FileType

from serve_app.errors import InvalidRequestError

PART = ".part"  # ends the name of a file until it is complete


@dataclass(frozen=True, slots=True)
class Place:
    """A path on one of pyarrow's file systems."""

    system: FileSystem
    path: str
    scheme: str

    @classmethod
    def of(cls, text: str) -> "Place":
        if "://" not in text:
            path = Path(text).expanduser().absolute()
            return cls(FileSystem.from_uri(path.as_uri())[0], str(path), "")
        try:
            system, path = FileSystem.from_uri(text)
        except (ArrowException, ValueError, OSError) as problem:
            raise InvalidRequestError(f"{text}: {problem}") from None
        return cls(system, path, text.split("://", 1)[0])

    def name(self, path: str) -> str:
        """Return a path on this file system with its scheme, as `Place.of` reads it."""
        return f"{self.scheme}://{path}" if self.scheme else path

    def __truediv__(self, name: str) -> "Place":
        return Place(self.system, f"{self.path}/{name}", self.scheme)

    def __str__(self) -> str:
        return self.name(self.path)

    def read(self) -> bytes:
        with self.system.open_input_stream(self.path) as stream:
            return bytes(stream.read())

    def write(self, content: bytes) -> None:
        """Write atomically: by renaming on a disk; S3 shows an object only when it is complete."""
        parent = self.path.rpartition("/")[0]
        self.system.create_dir(parent, recursive=True)
        target = self.path if self.scheme else f"{self.path}.{uuid.uuid4().hex}{PART}"
        with self.system.open_output_stream(target) as stream:
            stream.write(content)
        if target != self.path:
            self.system.move(target, self.path)

    def remove(self) -> None:
        if self.system.get_file_info(self.path).type == FileType.File:
            self.system.delete_file(self.path)

    def files(self, recursive: bool = True) -> list[str]:
        found = self.system.get_file_info(FileSelector(self.path, recursive=recursive, allow_not_found=True))
        return sorted(one.path for one in found if one.type == FileType.File)

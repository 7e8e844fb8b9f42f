"""Where pictures and tables lie: a folder or s3://, by pyarrow's file systems; and which pictures a source means."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pyarrow.parquet as parquet
from pyarrow import ArrowException
from pyarrow.fs import FileSelector, FileSystem, FileType

from serve_app.detection.preprocess import ENDINGS
from serve_app.errors import InvalidRequestError

MANIFESTS = (".txt", ".lst", ".csv")
PATH_COLUMNS = ("uri", "path", "file", "filename", "image_path")
BYTES_COLUMNS = ("bytes", "image", "content", "data")
PART = ".part"  # of a file that isn't whole yet, or never became it
ROW = "#"  # `pictures.parquet#17`: a picture that stands in a table's row


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
        """A path on this system as anybody may read it."""
        return f"{self.scheme}://{path}" if self.scheme else path

    def __truediv__(self, name: str) -> "Place":
        return Place(self.system, f"{self.path}/{name}", self.scheme)

    def __str__(self) -> str:
        return self.name(self.path)

    def read(self) -> bytes:
        with self.system.open_input_stream(self.path) as stream:
            return bytes(stream.read())

    def write(self, content: bytes) -> None:
        """Whole or not at all: on a disk by renaming, on S3 because an object appears when it is complete."""
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


def pictures_of(source: str) -> list[str]:
    """Names of all pictures, in an order that is always the same."""
    place = Place.of(source)
    kind = place.system.get_file_info(place.path).type
    if kind == FileType.NotFound:
        raise InvalidRequestError(f"{source}: there is no such file or folder")
    if kind == FileType.Directory:
        files = place.files()
        found = [place.name(path) for path in files if path.lower().endswith(ENDINGS)]
        found += [name for path in files if path.endswith(".parquet") for name in _in_table(place, path)]
    elif place.path.endswith(".parquet"):
        found = list(_in_table(place, place.path))
    elif place.path.lower().endswith(MANIFESTS):
        found = list(_in_manifest(place))
    else:
        found = [str(place)]
    if not found:
        raise InvalidRequestError(f"{source}: no pictures ({', '.join(ENDINGS)}), and no table or list of any")
    if len(set(found)) < len(found):
        raise InvalidRequestError(f"{source}: {len(found) - len(set(found))} pictures are named twice")
    return found


def _in_manifest(place: Place) -> Iterator[str]:
    """A picture a line; those without a scheme lie beside the list, or at an absolute path."""
    folder = place.path.rpartition("/")[0]
    for line in place.read().decode("utf-8-sig").splitlines():
        name = line.split(",")[0].strip()
        if name and not name.startswith("#"):
            yield name if "://" in name or name.startswith("/") else place.name(f"{folder}/{name}")


def _in_table(place: Place, path: str) -> Iterator[str]:
    table = parquet.ParquetFile(place.system.open_input_file(path))
    column = _column(table.schema_arrow.names, place.name(path))
    if column in BYTES_COLUMNS:
        yield from (f"{place.name(path)}{ROW}{row}" for row in range(table.metadata.num_rows))
    else:
        for batch in table.iter_batches(columns=[column]):
            yield from batch.column(0).to_pylist()


def _column(names: list[str], table: str) -> str:
    for known in (*BYTES_COLUMNS, *PATH_COLUMNS):
        if known in names:
            return known
    wanted = ", ".join((*PATH_COLUMNS, *BYTES_COLUMNS))
    raise InvalidRequestError(f"{table}: has the columns {', '.join(names)}, and none of {wanted}")


def read_picture(name: str) -> bytes:
    table, mark, row = name.rpartition(ROW)
    if mark and table.endswith(".parquet") and row.isdecimal():
        return _read_row(table, int(row))
    return Place.of(name).read()


def _read_row(name: str, row: int) -> bytes:
    table = _open_table(name)
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if row < rows:
            return bytes(_group(name, group)[row])
        row -= rows
    raise InvalidRequestError(f"{name} has no row {row}")


@cache
def _open_table(name: str) -> parquet.ParquetFile:
    place = Place.of(name)
    return parquet.ParquetFile(place.system.open_input_file(place.path))


_last_group: dict[tuple[str, int], list[bytes]] = {}


def _group(name: str, group: int) -> list[bytes]:
    """The pictures of a row group; the last one is kept, since they are read in their order."""
    if (name, group) not in _last_group:
        table = _open_table(name)
        column = _column(table.schema_arrow.names, name)
        _last_group.clear()
        _last_group[name, group] = table.read_row_group(group, [column]).column(0).to_pylist()
    return _last_group[name, group]

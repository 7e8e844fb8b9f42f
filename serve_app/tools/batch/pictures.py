"""The pictures of a source: finds them in folders, lists and Parquet tables, and reads one by its name."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import pyarrow.parquet as parquet
from pyarrow.fs import FileType

from serve_app.detection.preprocess import ENDINGS
from serve_app.errors import InvalidRequestError
from serve_app.tools.batch.places import Place

LISTS = (".txt", ".lst", ".csv")
PATH_COLUMNS = ("uri", "path", "file", "filename", "image_path")
BYTES_COLUMNS = ("bytes", "image", "content", "data")
ROW = "#"  # `pictures.parquet#17` is the picture in row 17 of that table


def find_pictures(source: str) -> list[str]:
    """Return the names of all pictures, always in the same order."""
    place = Place.of(source)
    kind = place.system.get_file_info(place.path).type
    if kind == FileType.NotFound:
        raise InvalidRequestError(f"{source}: no such file or folder")
    if kind == FileType.Directory:
        files = place.files()
        found = [place.name(path) for path in files if path.lower().endswith(ENDINGS)]
        found += [name for path in files if path.endswith(".parquet") for name in _names_in_table(place, path)]
    elif place.path.endswith(".parquet"):
        found = list(_names_in_table(place, place.path))
    elif place.path.lower().endswith(LISTS):
        found = list(_names_in_list(place))
    else:
        found = [str(place)]
    if not found:
        raise InvalidRequestError(f"{source}: no pictures ({', '.join(ENDINGS)}) and no Parquet table or list of them")
    if len(set(found)) < len(found):
        raise InvalidRequestError(f"{source}: {len(found) - len(set(found))} pictures are listed more than once")
    return found


def _names_in_list(place: Place) -> Iterator[str]:
    """One picture a line; a relative path starts at the list's folder."""
    folder = place.path.rpartition("/")[0]
    for line in place.read().decode("utf-8-sig").splitlines():
        name = line.split(",")[0].strip()
        if name and not name.startswith("#"):
            yield name if "://" in name or name.startswith("/") else place.name(f"{folder}/{name}")


def _names_in_table(place: Place, path: str) -> Iterator[str]:
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
    raise InvalidRequestError(f"{table}: needs one of the columns {wanted}, has {', '.join(names)}")


async def read_picture(name: str) -> bytes:
    """Return the picture's bytes. Rows of tables are read by one thread, in the order of the calls."""
    table, mark, row = name.rpartition(ROW)
    if mark and table.endswith(".parquet") and row.isdecimal():
        return await asyncio.get_running_loop().run_in_executor(_table_reader, _read_row, table, int(row))
    return await asyncio.to_thread(Place.of(name).read)


# Pictures are requested in order. Several threads would lose that order and read row groups again for late rows.
_table_reader = ThreadPoolExecutor(1)


def _read_row(name: str, row: int) -> bytes:
    first = 0
    metadata = _open_table(name).metadata
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if row < first + rows:
            content = _row_group(name, group)[row - first]
            if content is None:
                raise InvalidRequestError(f"row {row} of {name} has no picture")
            return content
        first += rows
    raise InvalidRequestError(
        f"{name} has only {first} rows, so it has no row {row}; has it changed since the run began?"
    )


@lru_cache(maxsize=1)
def _open_table(name: str) -> parquet.ParquetFile:
    place = Place.of(name)
    return parquet.ParquetFile(place.system.open_input_file(place.path))


@lru_cache(maxsize=1)
def _row_group(name: str, group: int) -> list[bytes | None]:
    table = _open_table(name)
    rows: list[bytes | None] = (
        table.read_row_group(group, [_column(table.schema_arrow.names, name)]).column(0).to_pylist()
    )
    return rows

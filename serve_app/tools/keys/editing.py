"""Changes of a keys file: one at a time, whole or not at all."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

import yaml

from serve_app.keys.file import Key, read_keys


def known_keys(path: Path) -> list[Key]:
    return list(read_keys(path).keys)


@contextmanager
def changed_keys(path: Path) -> Iterator[list[Key]]:
    """The list to change; it is written when the block ends without an error."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        keys = known_keys(path) if path.exists() else []
        yield keys
        _write(path, keys)
    finally:
        os.close(folder)


def _write(path: Path, keys: list[Key]) -> None:
    """For the owner alone, unless the file has other permissions already."""
    rows = [key.model_dump(mode="json", exclude_none=True) for key in keys]
    mode = path.stat().st_mode if path.exists() else 0o600
    with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            yaml.safe_dump({"keys": rows}, file, sort_keys=False)
            file.flush()
            os.fchmod(file.fileno(), mode & 0o777)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise

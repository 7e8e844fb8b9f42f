"""Objects on their way to the disk: resumed where an interrupted download ended, and whole by size and sum."""

import hashlib
import os
import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from serve_app.errors import ModelLoadError, NotFoundError, UnavailableError
from serve_app.tools.models.catalog import OBJECTS, Catalog
from serve_app.tools.models.progress import Transfer, tell
from serve_app.tools.models.store import TRANSFERS

CHUNK = 1 << 20
TRIES = 5  # in a row that bring nothing
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
PART = ".part"


class _StoppedError(Exception):
    """Another download failed, and this one isn't wanted any more."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object, and the file that a message calls it by."""

    sha256: str
    size: int
    file: str


class Downloader:
    """Files are named by their sums; `.part` is what isn't whole yet, and stays for the next try."""

    def __init__(self, catalog: Catalog, folder: Path, transfer: Transfer) -> None:
        self._catalog = catalog
        self._folder = folder
        self._transfer = transfer
        self._stopping = threading.Event()

    def fetch(self, objects: Mapping[str, Wanted]) -> None:
        """All of them, or the first error; no thread goes on after that."""
        pool = ThreadPoolExecutor(TRANSFERS)
        try:
            waiting = [pool.submit(self._fetch, wanted) for wanted in objects.values()]
            done, _ = wait(waiting, return_when=FIRST_EXCEPTION)
            for problem in filter(None, (future.exception() for future in done)):
                if not isinstance(problem, _StoppedError):
                    raise problem
        finally:
            self._stopping.set()
            pool.shutdown(cancel_futures=True)

    def _fetch(self, wanted: Wanted) -> None:
        part = self._folder / f"{wanted.sha256}{PART}"
        for last in (False, True):
            with part.open("ab+", buffering=0) as file:
                if self._complete(file, wanted):
                    os.fsync(file.fileno())
                    os.replace(part, self._folder / wanted.sha256)
                    return
                self._transfer.advance(-file.seek(0, os.SEEK_END))
                file.truncate(0)
            if not last:
                tell(f"{self._name(wanted)} came with another sum: trying once more")
        raise ModelLoadError(
            f"{self._name(wanted)} is corrupt: its content has another sum. Nothing was switched here; upload it again "
            f"with `scripts/models push --force FOLDER {self._catalog.url}`"
        )

    def _complete(self, file: BinaryIO, wanted: Wanted) -> bool:
        """Bring what the file lacks; whether its content is right then."""
        summed = hashlib.sha256()
        file.seek(0)
        while known := file.read(CHUNK):
            summed.update(known)
            self._transfer.advance(len(known))
        tries, offset = 0, file.tell()
        while offset < wanted.size:
            try:
                if not self._append(file, wanted, offset, summed):
                    return False
            except UnavailableError as problem:
                tries = 1 if file.tell() > offset else tries + 1
                if tries == TRIES:
                    raise
                self._pause(tries, problem)
            offset = file.tell()
        return offset == wanted.size and summed.hexdigest() == wanted.sha256

    def _append(self, file: BinaryIO, wanted: Wanted, offset: int, summed: "hashlib._Hash") -> bool:
        """False where the object ends elsewhere than it should."""
        name = f"{OBJECTS}{wanted.sha256}"
        try:
            length, body = self._catalog.store.stream(name, offset)
        except NotFoundError:
            raise ModelLoadError(
                f"{self._name(wanted)} isn't there any more: push again, or `use` another manifest"
            ) from None
        if length != wanted.size - offset:
            if body:
                body.close()
            return False
        with body:
            while True:
                with self._catalog.store.told(name):
                    content = body.read(CHUNK)
                if not content:
                    return True
                self._require_wanted()
                file.write(content)
                summed.update(content)
                self._transfer.advance(len(content))

    def _pause(self, tries: int, problem: UnavailableError) -> None:
        pause_s = min(FIRST_PAUSE_S * 2**tries, LONGEST_PAUSE_S)
        tell(f"{problem}; going on in {pause_s:.0f} s")
        self._stopping.wait(pause_s)
        self._require_wanted()

    def _require_wanted(self) -> None:
        if self._stopping.is_set():
            raise _StoppedError

    def _name(self, wanted: Wanted) -> str:
        return f"{self._catalog.url}/{OBJECTS}{wanted.sha256} ({wanted.file})"

"""Moves chunks to and from the bucket, several at once, and checks every one by its checksum."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

from serve_app.errors import ConfigurationError, ModelLoadError, NotFoundError, UnavailableError
from serve_app.tools.models.bucket import CONNECTIONS
from serve_app.tools.models.manifest import Chunk, sha256_of
from serve_app.tools.models.progress import TransferProgress, report
from serve_app.tools.models.repository import OBJECTS, Repository

ATTEMPTS = 5
FIRST_PAUSE_S = 1.0


def upload(repository: Repository, sources: Sequence[tuple[Chunk, Path]]) -> None:
    """Upload pieces of files, and refuse a file that has changed since it was scanned."""
    with TransferProgress("upload", sum(chunk.size for chunk, _ in sources)) as progress:
        run_all([partial(_upload, repository, chunk, path, progress) for chunk, path in sources])


def _upload(repository: Repository, chunk: Chunk, path: Path, progress: TransferProgress) -> None:
    try:
        content = read_chunk(path, chunk)
    except OSError as problem:
        raise ConfigurationError(f"cannot read {path}: {(problem.strerror or str(problem)).lower()}") from None
    if content is None:
        raise ConfigurationError(f"{path} changed during the push: push again when nothing writes to it")
    repository.bucket.write(f"{OBJECTS}{chunk.sha256}", content, chunk.sha256)
    progress.advance(chunk.size)


def read_chunk(path: Path, chunk: Chunk) -> bytes | None:
    """Return None where the file has other content there."""
    with path.open("rb") as file:
        file.seek(chunk.offset)
        content = file.read(chunk.size)
    return content if sha256_of(content) == chunk.sha256 else None


class Downloads:
    """Chunks for several threads; `stop` ends the pauses between attempts."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._stopping = threading.Event()
        self.stop = self._stopping.set

    def fetch(self, chunk: Chunk, path: str) -> bytes:
        """`path` is the file in the repository that an error names."""
        name = f"{self._repository.url}/{OBJECTS}{chunk.sha256} ({path})"
        for retry in (True, False):
            content = self._read(chunk, name)
            if sha256_of(content) == chunk.sha256:
                return content
            if retry:
                report(f"{name}: wrong checksum, downloading it again")
        raise ModelLoadError(
            f"{name} is corrupt: its checksum is wrong. `current` was not switched; upload the object again with "
            f"`scripts/models push --force FOLDER {self._repository.url}`"
        )

    def _read(self, chunk: Chunk, name: str) -> bytes:
        """Retry responses that break off; botocore retries only the requests."""
        attempt = 1
        while True:
            try:
                return self._repository.bucket.read(f"{OBJECTS}{chunk.sha256}", chunk.size)
            except NotFoundError:
                raise ModelLoadError(
                    f"{name} no longer exists: push again, or run `scripts/models use` to return to another push"
                ) from None
            except UnavailableError as problem:
                if attempt == ATTEMPTS or self._stopping.is_set():
                    raise
                pause_s = FIRST_PAUSE_S * 2 ** (attempt - 1)
                report(f"{problem}; trying again in {pause_s:.0f} s")
                self._stopping.wait(pause_s)
                attempt += 1


def run_all(work: Iterable[Callable[[], None]], stop: Callable[[], None] = lambda: None) -> None:
    """Run on several threads until all are done or one fails."""
    pool = ThreadPoolExecutor(CONNECTIONS)
    try:
        done, _ = wait([pool.submit(one) for one in work], return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
    finally:
        stop()
        pool.shutdown(cancel_futures=True)

"""Files on their way into the bucket: several requests at once, big files in parts, and parts that are there kept."""

import hashlib
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from serve_app.errors import ConfigurationError, NotFoundError
from serve_app.tools.models.catalog import OBJECTS
from serve_app.tools.models.progress import Transfer
from serve_app.tools.models.store import TRANSFERS, Store

MIB = 1 << 20
WHOLE_UP_TO = 16 * MIB  # what is bigger goes in parts of this size
MOST_PARTS = 9000  # S3 takes 10,000


class Uploader:
    """What is read is summed again on its way: a file that changed since is never stored under the old sum."""

    def __init__(self, store: Store, transfer: Transfer, whole_up_to: int = WHOLE_UP_TO) -> None:
        self._store = store
        self._transfer = transfer
        self._whole_up_to = whole_up_to
        self._room = threading.Semaphore(2 * TRANSFERS)  # bounds the parts that wait in memory

    def send(self, files: Mapping[str, tuple[Path, int]]) -> None:
        """Paths and sizes by their sums."""
        pool = ThreadPoolExecutor(TRANSFERS)
        try:
            small = {digest: path for digest, (path, size) in files.items() if size <= self._whole_up_to}
            waiting = [pool.submit(self._send_whole, digest, path) for digest, path in small.items()]
            for digest, (path, size) in files.items():
                if digest not in small:
                    self._send_in_parts(pool, digest, path, size)
            _require_all(waiting)
        finally:
            pool.shutdown(cancel_futures=True)

    def _send_whole(self, digest: str, path: Path) -> None:
        content = _read(path)
        if hashlib.sha256(content).hexdigest() != digest:
            raise _changed(path)
        self._store.write(f"{OBJECTS}{digest}", content, digest)
        self._transfer.advance(len(content))

    def _send_in_parts(self, pool: ThreadPoolExecutor, digest: str, path: Path, size: int) -> None:
        """Another push of the same file may end the upload that both take up: with the whole object, or without."""
        try:
            self._send_all_parts(pool, digest, path, size)
        except NotFoundError:
            if not any(one.size == size for one in self._store.listing(f"{OBJECTS}{digest}")):
                self._send_all_parts(pool, digest, path, size)

    def _send_all_parts(self, pool: ThreadPoolExecutor, digest: str, path: Path, size: int) -> None:
        part_size = max(self._whole_up_to, -(-size // MOST_PARTS))
        upload = _Upload(self._store, f"{OBJECTS}{digest}")
        read = hashlib.sha256()
        waiting: list[Future[dict[str, Any]]] = []
        for number, part in enumerate(_parts(path, part_size), 1):
            read.update(part)
            self._room.acquire()
            waiting.append(pool.submit(self._send_part, upload, number, part))
            if any(future.done() and future.exception() for future in waiting):
                break
        _require_all(waiting)
        if read.hexdigest() != digest:
            upload.abort()
            raise _changed(path)
        upload.complete([future.result() for future in waiting])

    def _send_part(self, upload: "_Upload", number: int, part: bytes) -> dict[str, Any]:
        try:
            done = upload.send(number, part)
            self._transfer.advance(len(part))
            return done
        finally:
            self._room.release()


class _Upload:
    """One multipart upload: taken up again where an interrupted one for the same content is there."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._id, self._there = self._begun() or (self._begin(), {})

    def _begun(self) -> tuple[str, dict[int, dict[str, Any]]] | None:
        """The newest that was begun, and its parts; without the right to ask, none."""
        target = self._store.target(self._name)
        try:
            with self._store.told(self._name):
                pages = self._store.client.get_paginator("list_multipart_uploads")
                found = [
                    upload
                    for page in pages.paginate(Bucket=target["Bucket"], Prefix=target["Key"])
                    for upload in page.get("Uploads", ())
                    if upload["Key"] == target["Key"]
                ]
                if not found:
                    return None
                newest = max(found, key=lambda upload: upload["Initiated"])["UploadId"]
                pages = self._store.client.get_paginator("list_parts").paginate(**target, UploadId=newest)
                return newest, {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}
        except (ConfigurationError, NotFoundError):
            return None

    def _begin(self) -> str:
        with self._store.told(self._name):
            return str(self._store.client.create_multipart_upload(**self._store.target(self._name))["UploadId"])

    def send(self, number: int, part: bytes) -> dict[str, Any]:
        """A part that is there is known by its MD5, which S3 gives as its ETag; under KMS it isn't, and goes again."""
        etag = f'"{hashlib.md5(part, usedforsecurity=False).hexdigest()}"'
        there = self._there.get(number)
        if not there or there["ETag"] != etag:
            with self._store.told(self._name):
                target = self._store.target(self._name) | {"UploadId": self._id}
                etag = self._store.client.upload_part(**target, PartNumber=number, Body=part)["ETag"]
        return {"PartNumber": number, "ETag": etag}

    def complete(self, parts: list[dict[str, Any]]) -> None:
        with self._store.told(self._name):
            target = self._store.target(self._name) | {"UploadId": self._id}
            self._store.client.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})

    def abort(self) -> None:
        with self._store.told(self._name):
            self._store.client.abort_multipart_upload(**self._store.target(self._name), UploadId=self._id)


def _require_all(waiting: list[Future[Any]]) -> None:
    """As soon as one fails, its error."""
    done, _ = wait(waiting, return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()


def _parts(path: Path, size: int) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while part := file.read(size):
                yield part
    except OSError as problem:
        raise ConfigurationError(f"{path} can't be read: {(problem.strerror or str(problem)).lower()}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise ConfigurationError(f"{path} can't be read: {(problem.strerror or str(problem)).lower()}") from None


def _changed(path: Path) -> ConfigurationError:
    return ConfigurationError(f"{path} changed while it was pushed: push again when nothing writes there")

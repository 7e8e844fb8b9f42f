"""A model repository in a bucket: chunks of files, manifests, and `current`, which names one of the manifests."""

import json
import re
from datetime import UTC, datetime
from typing import NamedTuple

from serve_app.errors import InvalidRequestError, ModelLoadError, NotFoundError
from serve_app.tools.models.bucket import Bucket, StoredObject
from serve_app.tools.models.manifest import DIGEST, Manifest, sha256_of, short

CURRENT, MANIFESTS, OBJECTS = "current", "manifests/", "objects/"


class Pointer(NamedTuple):
    """The digest that `current` names, and the ETag that tells whether it still does."""

    digest: str
    etag: str


class Pushed(NamedTuple):
    digest: str
    at: datetime


class Repository:
    """Readers see a push when `current` names it: one small object, replaced atomically, after all the others."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.url = str(bucket.url)

    @property
    def current_digest(self) -> str:
        pointer = self.changed_since(None)
        assert pointer, "without an ETag there is always an answer"
        return pointer.digest

    def changed_since(self, etag: str | None) -> Pointer | None:
        """Return None where `current` still has this ETag."""
        try:
            answer = self.bucket.read_if_changed(CURRENT, etag)
        except NotFoundError:
            raise NotFoundError(
                f"{self.url}: nothing has been pushed: run `scripts/models push FOLDER {self.url}`, or correct the URL"
            ) from None
        return Pointer(self._parse_pointer(answer[0]), answer[1]) if answer else None

    def _parse_pointer(self, content: bytes) -> str:
        try:
            digest = json.loads(content)["manifest"]
            if re.match(DIGEST, digest):
                return str(digest)
        except (ValueError, KeyError, TypeError):
            pass
        raise ModelLoadError(f"{self.url}/{CURRENT} is corrupt: push again, or run `scripts/models use`")

    def switch(self, digest: str) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self.bucket.write(CURRENT, json.dumps({"manifest": digest, "at": at}).encode())

    def manifest(self, digest: str) -> Manifest:
        name = f"{MANIFESTS}{digest}.json"
        content = self.bucket.read(name)
        if sha256_of(content) != digest:
            raise ModelLoadError(f"{self.url}/{name} is corrupt: push again, or run `scripts/models use`")
        return Manifest.parse(content, f"{self.url}/{name}")

    def write_manifest(self, manifest: Manifest) -> None:
        self.bucket.write(f"{MANIFESTS}{manifest.digest}.json", manifest.content, manifest.digest)

    def history(self) -> list[Pushed]:
        """Newest first."""
        listed = [
            (one.name[len(MANIFESTS) :].removesuffix(".json"), one.modified) for one in self.bucket.list(MANIFESTS)
        ]
        pushed = [Pushed(digest, at) for digest, at in listed if re.match(DIGEST, digest)]
        return sorted(pushed, key=lambda one: (one.at, one.digest), reverse=True)

    def find(self, start: str) -> Pushed:
        """Return the only manifest whose digest starts so."""
        history = self.history()
        found = [pushed for pushed in history if start and pushed.digest.startswith(start.lower())]
        if len(found) == 1:
            return found[0]
        listed = ", ".join(short(pushed.digest) for pushed in (found or history)[:8]) or "none"
        if found:
            raise InvalidRequestError(f"{start!r} matches several manifests: {listed}: give more characters")
        raise InvalidRequestError(
            f"{self.url} has no manifest {start!r}; available: {listed} (`ls --history` lists all)"
        )

    def objects(self) -> dict[str, StoredObject]:
        """Every stored chunk by its checksum."""
        return {one.name.removeprefix(OBJECTS): one for one in self.bucket.list(OBJECTS)}

    def missing(self, manifest: Manifest) -> dict[str, int]:
        """Sizes of the chunks that aren't stored, or are with another size, by checksum."""
        stored = self.objects()
        return {
            digest: size
            for digest, size in manifest.objects.items()
            if digest not in stored or stored[digest].size != size
        }

"""The repository below a prefix: `objects/` by their sums, `manifests/` of them, and `current`, which names one."""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime

from serve_app.errors import InvalidRequestError, ModelLoadError, NotFoundError
from serve_app.tools.models.manifest import DIGEST, Manifest, short
from serve_app.tools.models.store import Listed, Store

CURRENT, MANIFESTS, OBJECTS = "current", "manifests/", "objects/"


@dataclass(frozen=True, slots=True)
class Pointer:
    """What `current` names, and the ETag that tells whether it still does."""

    digest: str
    etag: str


@dataclass(frozen=True, slots=True)
class Pushed:
    digest: str
    at: datetime


class Catalog:
    """A reader sees a push when `current` names it: one small object, replaced at once, after all else is there."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def url(self) -> str:
        return str(self.store.url)

    def current(self) -> Pointer:
        pointer = self.changed_since(None)
        assert pointer, "without an ETag there is always an answer"
        return pointer

    def changed_since(self, etag: str | None) -> Pointer | None:
        """None where the ETag is still this one."""
        try:
            answer = self.store.read_if_changed(CURRENT, etag)
        except NotFoundError:
            raise NotFoundError(
                f"{self.url}: nothing has been pushed there: `scripts/models push FOLDER {self.url}`, or mend the URL"
            ) from None
        return Pointer(self._named_by(answer[0]), answer[1]) if answer else None

    def _named_by(self, content: bytes) -> str:
        try:
            digest = json.loads(content)["manifest"]
            if re.match(DIGEST, digest):
                return str(digest)
        except (ValueError, KeyError, TypeError):
            pass
        raise ModelLoadError(f"{self.url}/{CURRENT} names no manifest: push again, or `use` an older one")

    def switch(self, digest: str) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self.store.write(CURRENT, json.dumps({"manifest": digest, "at": at}).encode())

    def manifest(self, digest: str) -> Manifest:
        name = f"{MANIFESTS}{digest}.json"
        content = self.store.read(name)
        if hashlib.sha256(content).hexdigest() != digest:
            raise ModelLoadError(f"{self.url}/{name} is corrupt: push again, or `use` an older one")
        return Manifest.parse(content, f"{self.url}/{name}")

    def write_manifest(self, manifest: Manifest) -> None:
        self.store.write(f"{MANIFESTS}{manifest.digest}.json", manifest.content, manifest.digest)

    def history(self) -> list[Pushed]:
        """The newest first."""
        named = [(one.name.removeprefix(MANIFESTS).removesuffix(".json"), one.at) for one in self._listed(MANIFESTS)]
        found = [Pushed(digest, at) for digest, at in named if re.match(DIGEST, digest)]
        return sorted(found, key=lambda pushed: (pushed.at, pushed.digest), reverse=True)

    def find(self, start: str) -> Pushed:
        """The one manifest whose digest starts so."""
        history = self.history()
        found = [pushed for pushed in history if start and pushed.digest.startswith(start.lower())]
        if len(found) == 1:
            return found[0]
        there = ", ".join(short(pushed.digest) for pushed in (found or history)[:8]) or "nothing"
        if found:
            raise InvalidRequestError(f"{start!r} starts several: {there}; write more of it")
        raise InvalidRequestError(f"{self.url} has no manifest {start!r}; there is: {there} (`ls --history` tells all)")

    def objects(self) -> dict[str, Listed]:
        """By their sums."""
        return {one.name.removeprefix(OBJECTS): one for one in self._listed(OBJECTS)}

    def _listed(self, folder: str) -> list[Listed]:
        return list(self.store.listing(folder))

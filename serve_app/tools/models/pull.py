"""A repository from the bucket into a folder, once or as a follower: the switch comes when everything is there."""

import errno
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serve_app.errors import ConfigurationError, NotFoundError, ServeAppError, UnavailableError
from serve_app.tools.models.building import Builder, renew_times
from serve_app.tools.models.catalog import Catalog, Pointer
from serve_app.tools.models.download import Downloader
from serve_app.tools.models.manifest import Manifest, short
from serve_app.tools.models.progress import Transfer, readable, tell
from serve_app.tools.models.shelf import Shelf

LONGEST_PAUSE_S = 300.0
OTHERS_PAUSE_S = 1.0  # between looks at what another pull into the folder does
MARGIN = 16 << 20  # of the disk, for folders and links


@dataclass(frozen=True, slots=True)
class Following:
    """How a pull goes on, and how it waits."""

    every_s: float = 15.0
    wait: bool = False  # for a first push


class Puller:
    """One process at a time pulls into a folder; a second one waits until it can, or has nothing to do."""

    def __init__(self, catalog: Catalog, folder: Path, following: Following) -> None:
        self._catalog = catalog
        self._shelf = Shelf(folder)
        self._following = following
        self._etag: str | None = None

    def once(self) -> None:
        try:
            with _disk_told(self._shelf.folder):
                self._shelf.prepare()
                pointer = self._first()
                if self._hold(pointer.digest):
                    self._install(pointer)
        finally:
            self._shelf.release()

    def follow(self) -> None:
        """For ever. Until there is a first snapshot only what may pass by itself is waited for."""
        with _disk_told(self._shelf.folder):
            self._shelf.prepare()
            self._hold(None)
        failures = 0
        while True:
            try:
                with _disk_told(self._shelf.folder):
                    self._look()
                failures = 0
            except ServeAppError as problem:
                failures += 1
                if not self._may_pass(problem):
                    raise
                tell(f"{problem}; trying again in {self._pause_s(failures):.0f} s")
            time.sleep(self._pause_s(failures))

    def _look(self) -> None:
        pointer = self._catalog.changed_since(self._etag)
        if pointer:
            self._install(pointer)
            self._etag = pointer.etag

    def _may_pass(self, problem: ServeAppError) -> bool:
        if self._shelf.current_digest or isinstance(problem, UnavailableError):
            return True
        return self._following.wait and isinstance(problem, NotFoundError)

    def _pause_s(self, failures: int) -> float:
        longest = max(LONGEST_PAUSE_S, self._following.every_s)
        return float(min(self._following.every_s * 2 ** max(0, min(failures, 30) - 1), longest))

    def _first(self) -> Pointer:
        told = False
        while True:
            try:
                return self._catalog.current()
            except NotFoundError:
                if not self._following.wait:
                    raise
            if not told:
                told = True
                tell(f"waiting for a first push to {self._catalog.url}")
            time.sleep(self._following.every_s)

    def _hold(self, digest: str | None) -> bool:
        """Wait for the folder; False where another pull has brought this manifest meanwhile."""
        told = False
        while not self._shelf.lock():
            if digest and self._shelf.current_digest == digest:
                tell(f"{self._shelf.folder} is at {short(digest)}: another pull brought it")
                return False
            if not told:
                told = True
                tell(f"another pull works in {self._shelf.folder}: waiting for it")
            time.sleep(OTHERS_PAUSE_S)
        return True

    def _install(self, pointer: Pointer) -> None:
        shelf, digest = self._shelf, pointer.digest
        before = shelf.current_manifest
        manifest = self._catalog.manifest(digest)
        builder = self._builder_with_room(manifest)
        if shelf.current_digest == digest and not builder.missing:
            if self._etag is None:
                tell(f"{shelf.folder} is at {short(digest)} already")
            return
        self._fetch(builder)
        builder.build()
        renew_times(shelf, manifest)
        shelf.switch(manifest)
        shelf.clear()
        if before and before.digest != digest:
            shelf.sweep(digest, before.digest)
        tell(f"{shelf.folder} is now at {short(digest)}: {_difference(before, manifest)}")

    def _builder_with_room(self, manifest: Manifest) -> Builder:
        """The snapshot before the current one goes early where its room is needed."""
        builder = Builder(self._shelf, manifest)
        if _lacks_room(self._shelf.folder, builder):
            self._shelf.sweep(self._shelf.current_digest)
            builder = Builder(self._shelf, manifest)
        if _lacks_room(self._shelf.folder, builder):
            free = readable(shutil.disk_usage(self._shelf.folder).free)
            raise ConfigurationError(
                f"{self._shelf.folder} has {free} free, and {short(manifest.digest)} needs "
                f"{readable(builder.needed_bytes + MARGIN)} more: give it a larger disk (of a pod: the volume's size "
                "limit), or push less"
            )
        return builder

    def _fetch(self, builder: Builder) -> None:
        wanted = builder.to_fetch
        total = sum(one.size for one in wanted.values())
        tell(
            f"{len(builder.models)} of {len(builder.manifest.models)} models are new or changed: "
            f"{readable(total)} to fetch"
        )
        if wanted:
            with Transfer("fetch", total) as transfer:
                Downloader(self._catalog, self._shelf.objects, transfer).fetch(wanted)


def _lacks_room(folder: Path, builder: Builder) -> bool:
    return bool(builder.missing) and shutil.disk_usage(folder).free < builder.needed_bytes + MARGIN


def _difference(before: Manifest | None, now: Manifest) -> str:
    old = {model.name: model.digest for model in before.models} if before else {}
    new = {model.name: model.digest for model in now.models}
    changes = {
        "new": sorted(set(new) - set(old)),
        "changed": sorted(name for name in set(new) & set(old) if new[name] != old[name]),
        "gone": sorted(set(old) - set(new)),
    }
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in changes.items() if names) or "the same models"


@contextmanager
def _disk_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ConfigurationError(
                f"the disk of {folder} is full: give it a larger one; what was fetched is kept for the next pull"
            ) from None
        reason = (problem.strerror or str(problem)).lower()
        raise ConfigurationError(
            f"{problem.filename or folder}: {reason}: {folder} must be a folder that this user can write to"
        ) from None

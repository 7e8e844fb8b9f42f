"""Pulls a repository into a folder, once or continuously; `current` switches when everything is there."""

import errno
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serve_app.errors import ConfigurationError, NotFoundError, ServeAppError, UnavailableError
from serve_app.tools.models.folder import Folder
from serve_app.tools.models.manifest import Manifest, short
from serve_app.tools.models.progress import readable, report
from serve_app.tools.models.repository import Pointer, Repository
from serve_app.tools.models.snapshot import Snapshot

LONGEST_PAUSE_S = 300.0
LOCK_PAUSE_S = 1.0  # between attempts to lock a folder that another process writes to
MARGIN = 16 << 20  # bytes of the disk for folders and links


class Puller:
    """One process at a time writes to a folder; others wait."""

    def __init__(self, repository: Repository, folder: Path, every_s: float = 15.0, wait: bool = False) -> None:
        self._repository = repository
        self._folder = Folder(folder)
        self._every_s = every_s
        self._wait = wait
        self._etag: str | None = None

    def pull(self, follow: bool = False) -> None:
        """Once, after the first push if `wait` says so; or for ever, then surviving failures that may pass."""
        with _disk_errors(self._folder.path):
            self._folder.prepare()
        failures, announced = 0, False
        while True:
            try:
                with _disk_errors(self._folder.path):
                    self._update()
                if not follow:
                    return
                failures = 0
            except ServeAppError as problem:
                if self._is_awaited(problem):
                    if not announced:
                        report(f"{problem}; waiting for the first push")
                    announced = True
                elif follow and self._may_pass(problem):
                    failures += 1
                    report(f"{problem}; trying again in {self._pause_s(failures):.0f} s")
                else:
                    raise
            time.sleep(self._pause_s(failures))

    def _is_awaited(self, problem: ServeAppError) -> bool:
        return self._wait and isinstance(problem, NotFoundError) and self._folder.current_digest is None

    def _may_pass(self, problem: ServeAppError) -> bool:
        """With a snapshot to serve, everything may; without one, only what isn't the user's mistake."""
        return self._folder.current_digest is not None or isinstance(problem, UnavailableError)

    def _pause_s(self, failures: int) -> float:
        longest = max(LONGEST_PAUSE_S, self._every_s)
        return float(min(self._every_s * 2 ** max(0, min(failures, 30) - 1), longest))

    def _update(self) -> None:
        pointer = self._repository.changed_since(self._etag)
        if pointer:
            self._install_locked(pointer)
            self._etag = pointer.etag

    def _install_locked(self, pointer: Pointer) -> None:
        announced = False
        while True:
            with self._folder.try_lock() as locked:
                if locked:
                    self._install(pointer.digest)
                    return
            if self._folder.current_digest == pointer.digest:
                report(f"{self._folder.path} is at {short(pointer.digest)}: another pull installed it")
                return
            if not announced:
                report(f"another pull is writing to {self._folder.path}: waiting")
            announced = True
            time.sleep(LOCK_PAUSE_S)

    def _install(self, digest: str) -> None:
        folder, before = self._folder, self._folder.current_manifest
        manifest = self._repository.manifest(digest)
        snapshot = self._snapshot_that_fits(manifest)
        if folder.current_digest == digest and not snapshot.missing:
            report(f"{folder.path} is already at {short(digest)}")
            return
        changed, size = {entry.model for entry in snapshot.missing}, readable(snapshot.download_bytes)
        report(f"{len(changed)} of {len(manifest.models)} models are new or changed: {size} to download")
        snapshot.complete(self._repository)
        folder.switch(manifest)
        if before and before.digest != digest:
            folder.remove_others(digest, before.digest)
        report(f"{folder.path} is now at {short(digest)}: {_describe_changes(before, manifest)}")

    def _snapshot_that_fits(self, manifest: Manifest) -> Snapshot:
        """Remove the snapshot before the current one if its space is needed."""
        path = self._folder.path
        snapshot = Snapshot(self._folder, manifest)
        if not _fits(path, snapshot):
            self._folder.remove_others(self._folder.current_digest)
            self._folder.remove_unfinished({entry.name for entry in snapshot.missing})
            snapshot = Snapshot(self._folder, manifest)
        if not _fits(path, snapshot):
            raise ConfigurationError(
                f"{path} has {readable(shutil.disk_usage(path).free)} free, and {short(manifest.digest)} needs "
                f"{readable(snapshot.needed_bytes + MARGIN)}: use a larger disk (in a pod, raise the volume's "
                "sizeLimit), or push less"
            )
        return snapshot


def _fits(path: Path, snapshot: Snapshot) -> bool:
    return not snapshot.missing or shutil.disk_usage(path).free >= snapshot.needed_bytes + MARGIN


def _describe_changes(before: Manifest | None, now: Manifest) -> str:
    old = before.models if before else {}
    changes = {
        "new": sorted(now.models.keys() - old),
        "changed": sorted(name for name in now.models.keys() & old if now.models[name] != old[name]),
        "removed": sorted(old.keys() - now.models),
    }
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in changes.items() if names) or "the same models"


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ConfigurationError(
                f"the disk of {folder} is full: use a larger one; the next pull continues with what was downloaded"
            ) from None
        reason = (problem.strerror or str(problem)).lower()
        raise ConfigurationError(
            f"{problem.filename or folder}: {reason}: {folder} must be a folder that this user can write to"
        ) from None

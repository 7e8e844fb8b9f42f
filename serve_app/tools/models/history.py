"""The pushes of a repository: lists them, makes an older one current, and removes old ones."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from serve_app.errors import ConfigurationError, ServeAppError
from serve_app.tools.models.bucket import CONNECTIONS
from serve_app.tools.models.manifest import Manifest, StoredFile, group, short
from serve_app.tools.models.progress import readable, report
from serve_app.tools.models.repository import MANIFESTS, OBJECTS, Pushed, Repository


def list_models(repository: Repository) -> None:
    digest = repository.current_digest
    manifest = repository.manifest(digest)
    at = next((pushed.at for pushed in repository.history() if pushed.digest == digest), None)
    report(f"{repository.url} at {short(digest)}, pushed {_time(at) if at else 'at an unknown time'}")
    rows = [("model", "versions", "files", "size"), *(_row(*model) for model in manifest.models.items())]
    _, _, *total = _row("total", manifest.files)
    _report_table([*rows, ("total", "", *total)])


def _row(model: str, files: tuple[StoredFile, ...]) -> tuple[str, str, str, str]:
    versions = sorted(int(name) for name in (path.rpartition("/")[2] for path in group(files, 2)) if name.isdecimal())
    count = sum(not file.is_folder for file in files)
    return model, ", ".join(map(str, versions)) or "-", str(count), readable(sum(file.size for file in files))


def list_history(repository: Repository) -> None:
    current, history = repository.current_digest, repository.history()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        manifests = list(pool.map(lambda pushed: _read_manifest(repository, pushed), history))
    rows = [("digest", "pushed", "models", "size", "")]
    for pushed, manifest in zip(history, manifests, strict=True):
        sizes = (str(len(manifest.models)), readable(manifest.size)) if manifest else ("?", "?")
        rows.append((short(pushed.digest), _time(pushed.at), *sizes, "current" if pushed.digest == current else ""))
    _report_table(rows)


def _read_manifest(repository: Repository, pushed: Pushed) -> Manifest | None:
    try:
        return repository.manifest(pushed.digest)
    except ServeAppError:
        return None


def use(repository: Repository, start: str) -> None:
    """Make the manifest whose digest starts so current again, if all its objects are there."""
    pushed = repository.find(start)
    missing = repository.missing(repository.manifest(pushed.digest))
    if missing:
        raise ConfigurationError(
            f"{repository.url}: cannot use {short(pushed.digest)}: {len(missing)} of its objects were removed: push "
            "its folder again"
        )
    repository.switch(pushed.digest)
    report(f"{repository.url} is now at {short(pushed.digest)}, pushed {_time(pushed.at)}")


def prune(repository: Repository, keep: int, spare: timedelta, *, dry_run: bool = False) -> None:
    """Keep the newest manifests and the current one, and their objects.

    Objects younger than `spare` stay: a push that is still running may have uploaded them, its manifest comes last.
    """
    current, history = repository.current_digest, repository.history()
    old = [pushed.digest for pushed in history[keep:] if pushed.digest != current]
    if not dry_run:
        repository.bucket.delete(f"{MANIFESTS}{digest}.json" for digest in old)
    # An old manifest that is found below nevertheless was pushed again.
    read = set(old) if dry_run else set()
    needed = _read_needed(repository, read)
    limit = datetime.now(UTC) - spare
    stored = repository.objects()
    # Read again as late as possible: a manifest that has appeared meanwhile protects its objects.
    needed |= _read_needed(repository, read)
    unused = {digest: one for digest, one in stored.items() if digest not in needed and one.modified <= limit}
    if not dry_run:
        repository.bucket.delete(f"{OBJECTS}{digest}" for digest in unused)
    size = readable(sum(one.size for one in unused.values()))
    action = "would remove" if dry_run else "removed"
    report(f"{repository.url}: {action} {len(old)} of {len(history)} manifests and {len(unused)} objects, {size}")


def _read_needed(repository: Repository, read: set[str]) -> set[str]:
    """Return the objects of all manifests that have not been read yet."""
    new = [pushed.digest for pushed in repository.history() if pushed.digest not in read]
    read.update(new)
    return {digest for one in new for digest in repository.manifest(one).objects}


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _report_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        report("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

"""What has been pushed below a prefix: told, gone back to, and removed when it is old."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from serve_app.errors import ConfigurationError, ServeAppError
from serve_app.tools.models.catalog import MANIFESTS, OBJECTS, Catalog, Pushed
from serve_app.tools.models.manifest import Manifest, StoredModel, short
from serve_app.tools.models.progress import readable, tell
from serve_app.tools.models.store import TRANSFERS

ABANDONED = timedelta(days=1)  # an upload in parts that was begun so long ago is nobody's, and costs money


def list_models(catalog: Catalog) -> None:
    digest = catalog.current().digest
    manifest = catalog.manifest(digest)
    at = next((pushed.at for pushed in catalog.history() if pushed.digest == digest), None)
    tell(f"{catalog.url} at {short(digest)}, pushed {_time(at) if at else 'at an unknown time'}")
    rows = [("model", "versions", "files", "size"), *(_row(model) for model in manifest.models)]
    _tell_table([*rows, ("together", "", str(len(manifest.objects)), readable(sum(manifest.objects.values())))])


def _row(model: StoredModel) -> tuple[str, str, str, str]:
    versions = ", ".join(map(str, model.versions)) or "-"
    return model.name, versions, str(len(model.files)), readable(model.size)


def list_history(catalog: Catalog) -> None:
    """Every manifest that `use` can go back to, the newest first."""
    digest = catalog.current().digest
    history = catalog.history()
    with ThreadPoolExecutor(TRANSFERS) as pool:
        manifests = list(pool.map(lambda pushed: _readable_manifest(catalog, pushed), history))
    rows = [("digest", "pushed", "models", "size", "")]
    for pushed, manifest in zip(history, manifests, strict=True):
        sizes = (str(len(manifest.models)), readable(manifest.size)) if manifest else ("?", "?")
        rows.append((short(pushed.digest), _time(pushed.at), *sizes, "current" if pushed.digest == digest else ""))
    _tell_table(rows)


def _readable_manifest(catalog: Catalog, pushed: Pushed) -> Manifest | None:
    try:
        return catalog.manifest(pushed.digest)
    except ServeAppError:
        return None


def use(catalog: Catalog, start: str) -> None:
    """Make an older manifest current again; refuses one whose objects have gone."""
    pushed = catalog.find(start)
    there = catalog.objects()
    gone = [digest for digest in catalog.manifest(pushed.digest).objects if digest not in there]
    if gone:
        raise ConfigurationError(
            f"{catalog.url}: {short(pushed.digest)} can't be used: {len(gone)} of its objects have been removed; push "
            "its folder again"
        )
    catalog.switch(pushed.digest)
    tell(f"{catalog.url} is now at {short(pushed.digest)}, pushed {_time(pushed.at)}")


def prune(catalog: Catalog, keep: int, spare: timedelta, *, dry_run: bool = False) -> None:
    """Keep the newest manifests and the current one, and their objects.

    Younger objects than `spare` stay: they may be of a push under way, whose manifest comes last.
    """
    current = catalog.current().digest
    history = catalog.history()
    old = [pushed for pushed in history[keep:] if pushed.digest != current]
    if not dry_run:
        catalog.store.remove(f"{MANIFESTS}{pushed.digest}.json" for pushed in old)
    # one that was removed and is there again was pushed again
    named: dict[str, tuple[str, ...]] = {pushed.digest: () for pushed in old} if dry_run else {}
    _read_new_manifests(catalog, named)
    limit = datetime.now(UTC) - spare
    listed = catalog.objects()
    # Once more as late as can be: a manifest that came meanwhile protects its objects.
    _read_new_manifests(catalog, named)
    needed = {digest for objects in named.values() for digest in objects}
    unnamed = {d: one for d, one in listed.items() if d not in needed and one.at <= limit}
    if not dry_run:
        catalog.store.remove(f"{OBJECTS}{digest}" for digest in unnamed)
        _abort_abandoned(catalog)
    size = readable(sum(one.size for one in unnamed.values()))
    would = "would remove" if dry_run else "removed"
    tell(f"{catalog.url}: {would} {len(old)} of {len(history)} manifests and {len(unnamed)} objects, {size}")


def _read_new_manifests(catalog: Catalog, named: dict[str, tuple[str, ...]]) -> None:
    """Adds the objects of every manifest that isn't known yet."""
    for pushed in catalog.history():
        if pushed.digest not in named:
            named[pushed.digest] = tuple(catalog.manifest(pushed.digest).objects)


def _abort_abandoned(catalog: Catalog) -> None:
    store = catalog.store
    with store.told(OBJECTS):
        pages = store.client.get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=store.url.bucket, Prefix=store.url.key(OBJECTS)):
            for upload in page.get("Uploads", ()):
                if upload["Initiated"] < datetime.now(UTC) - ABANDONED:
                    target = {"Bucket": store.url.bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
                    store.client.abort_multipart_upload(**target)


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _tell_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        tell("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

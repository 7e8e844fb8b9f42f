"""A folder into the bucket: only what is missing there goes up, and `current` switches when everything is there."""

from pathlib import Path

from serve_app.errors import NotFoundError, UnavailableError
from serve_app.tools.models.catalog import Catalog
from serve_app.tools.models.manifest import Manifest, short
from serve_app.tools.models.progress import Transfer, readable, tell
from serve_app.tools.models.scan import Scan, scan
from serve_app.tools.models.upload import WHOLE_UP_TO, Uploader

CHECKS = 3  # a prune beside this push may remove what it counted on


def push(folder: Path, catalog: Catalog, *, dry_run: bool = False, force: bool = False, part: int = WHOLE_UP_TO) -> str:
    """The digest of what is current then. Two at once don't harm each other: the last to switch is current."""
    found = scan(folder)
    manifest = found.manifest
    if found.left_out:
        names = ", ".join(str(path.relative_to(folder)) for path in found.left_out)
        tell(f"left out, as hidden, unfinished or made by Python: {names}")
    missing = manifest.objects if force else _missing(manifest, catalog)
    stored = sum(manifest.objects.values())
    tell(
        f"{_count(len(manifest.models), 'model')}, {readable(stored)} in {_count(len(manifest.objects), 'file')}: "
        f"{_count(len(missing), 'file')} of {readable(sum(missing.values()))} to upload"
    )
    if dry_run:
        _tell_plan(manifest, missing, catalog)
        return manifest.digest
    _upload(missing, found, catalog, part)
    catalog.write_manifest(manifest)
    _require_everything(found, catalog, part)
    _switch(manifest, catalog)
    return manifest.digest


def _missing(manifest: Manifest, catalog: Catalog) -> dict[str, int]:
    there = catalog.objects()
    return {
        digest: size for digest, size in manifest.objects.items() if digest not in there or there[digest].size != size
    }


def _upload(missing: dict[str, int], found: Scan, catalog: Catalog, part: int) -> None:
    if missing:
        with Transfer("upload", sum(missing.values())) as transfer:
            files = {digest: (found.sources[digest], size) for digest, size in missing.items()}
            Uploader(catalog.store, transfer, part).send(files)


def _require_everything(found: Scan, catalog: Catalog, part: int) -> None:
    """Asked after the manifest is there, which from then on keeps a prune from removing its objects."""
    for _ in range(CHECKS):
        missing = _missing(found.manifest, catalog)
        if not missing:
            return
        _upload(missing, found, catalog, part)
    raise UnavailableError(f"{catalog.url} loses what is uploaded: is something else removing objects there?")


def _switch(manifest: Manifest, catalog: Catalog) -> None:
    before = _current_digest(catalog)
    if before == manifest.digest:
        tell(f"{catalog.url} has been at {short(manifest.digest)} already: nothing changed")
        return
    catalog.switch(manifest.digest)
    tell(f"{catalog.url} is now at {short(manifest.digest)}{f', before it at {short(before)}' if before else ''}")


def _current_digest(catalog: Catalog) -> str | None:
    try:
        return catalog.current().digest
    except NotFoundError:
        return None


def _tell_plan(manifest: Manifest, missing: dict[str, int], catalog: Catalog) -> None:
    for model in manifest.models:
        for file in model.files:
            if file.sha256 in missing:
                path = f"{model.name}/{file.path}".rstrip("/")
                tell(f"would upload {path} ({readable(file.size)})")
    before = _current_digest(catalog)
    changed = "stays" if before == manifest.digest else "would be"
    tell(f"{catalog.url} {changed} at {short(manifest.digest)}; nothing was written")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

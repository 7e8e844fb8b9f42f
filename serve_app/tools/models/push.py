"""Pushes a folder: uploads the chunks that the repository lacks, and switches `current` when all are there."""

from pathlib import Path

from serve_app.errors import NotFoundError, UnavailableError
from serve_app.tools.models.manifest import Manifest, StoredFile, short
from serve_app.tools.models.progress import readable, report
from serve_app.tools.models.repository import Repository
from serve_app.tools.models.scan import Scan, scan
from serve_app.tools.models.transfer import upload

CHECKS = 3  # a concurrent prune may delete chunks before the manifest protects them


def push(folder: Path, repository: Repository, *, dry_run: bool = False, force: bool = False) -> str:
    """Return the pushed digest. Of two pushes at once, the last to switch is current."""
    found = scan(folder)
    manifest = found.manifest
    if found.skipped:
        names = ", ".join(str(path.relative_to(folder)) for path in found.skipped)
        report(f"skipped hidden and temporary files: {names}")
    missing = manifest.objects if force else repository.missing(manifest)
    changed = [file for file in manifest.files if not missing.keys().isdisjoint(file.sha256)]
    report(
        f"{_count(len(manifest.models), 'model')}, {readable(sum(manifest.objects.values()))}: "
        f"{readable(sum(missing.values()))} of {_count(len(changed), 'file')} to upload"
    )
    if dry_run:
        _report_plan(manifest, changed, repository)
        return manifest.digest
    _upload(missing, found, repository)
    repository.write_manifest(manifest)
    _ensure_complete(found, repository)
    _switch(manifest, repository)
    return manifest.digest


def _upload(missing: dict[str, int], found: Scan, repository: Repository) -> None:
    if missing:
        upload(repository, [found.sources[digest] for digest in missing])


def _ensure_complete(found: Scan, repository: Repository) -> None:
    """Check once the manifest is there: from then on a prune keeps its objects."""
    for _ in range(CHECKS):
        missing = repository.missing(found.manifest)
        if not missing:
            return
        _upload(missing, found, repository)
    raise UnavailableError(f"{repository.url}: uploaded objects disappear: check whether something else deletes them")


def _switch(manifest: Manifest, repository: Repository) -> None:
    before = _current_digest(repository)
    if before == manifest.digest:
        report(f"{repository.url} is already at {short(manifest.digest)}: nothing changed")
        return
    repository.switch(manifest.digest)
    report(f"{repository.url} is now at {short(manifest.digest)}{f' (was at {short(before)})' if before else ''}")


def _current_digest(repository: Repository) -> str | None:
    try:
        return repository.current_digest
    except NotFoundError:
        return None


def _report_plan(manifest: Manifest, changed: list[StoredFile], repository: Repository) -> None:
    for file in changed:
        report(f"would upload {file.path} ({readable(file.size)})")
    would = "would stay" if _current_digest(repository) == manifest.digest else "would be"
    report(f"{repository.url} {would} at {short(manifest.digest)}; nothing was written")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

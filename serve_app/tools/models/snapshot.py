"""What a folder lacks of a manifest, completed from local copies and downloads; an interrupted one continues."""

import os
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

from serve_app.tools.models.folder import Folder, entries_of, is_complete
from serve_app.tools.models.manifest import Chunk, Manifest
from serve_app.tools.models.progress import TransferProgress
from serve_app.tools.models.repository import Repository
from serve_app.tools.models.transfer import Downloads, read_chunk, run_all

READ_ONLY, READ_ONLY_EXECUTABLE = 0o444, 0o555


class Gap(NamedTuple):
    """A chunk that an unfinished file lacks, and the file's name in the repository."""

    path: Path
    chunk: Chunk
    name: str


class Snapshot:
    """Chunks by their checksum: where the folder has them, and where they are missing."""

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self._folder = folder
        self.missing = [entry for entry in entries_of(manifest.files) if not folder.has(entry)]
        self._unfinished = [
            (folder.unfinished / entry.name / entry.inside(file), file)
            for entry in self.missing
            for file in entry.files
        ]
        self._copies = self._find_copies(manifest)
        self._gaps: dict[str, list[Gap]] = defaultdict(list)
        for path, file in self._unfinished:
            for chunk in file.chunks():
                if not path.is_file() or read_chunk(path, chunk) is None:
                    self._gaps[chunk.sha256].append(Gap(path, chunk, file.path))

    def _find_copies(self, manifest: Manifest) -> dict[str, tuple[Path, Chunk]]:
        entries = [entry for known in (*self._folder.manifests(), manifest) for entry in entries_of(known.files)]
        files = [(self._folder.path_of(entry) / entry.inside(file), file) for entry in entries for file in entry.files]
        return {
            chunk.sha256: (path, chunk) for path, file in files if is_complete(path, file) for chunk in file.chunks()
        }

    @property
    def needed_bytes(self) -> int:
        return sum(gap.chunk.size for gaps in self._gaps.values() for gap in gaps)

    @property
    def download_bytes(self) -> int:
        return sum(gaps[0].chunk.size for digest, gaps in self._gaps.items() if digest not in self._copies)

    def complete(self, repository: Repository) -> None:
        for path, file in self._unfinished:
            (path if file.is_folder else path.parent).mkdir(parents=True, exist_ok=True)
            if not file.is_folder:
                path.touch()
        downloads = Downloads(repository)
        with TransferProgress("download", self.download_bytes) as progress:
            run_all((partial(self._fill, digest, downloads, progress) for digest in self._gaps), downloads.stop)
        for path, file in self._unfinished:
            if not file.is_folder:
                with path.open("rb") as written:
                    os.fsync(written.fileno())
                path.chmod(READ_ONLY_EXECUTABLE if file.executable else READ_ONLY)
        for entry in self.missing:
            self._folder.add(entry)

    def _fill(self, digest: str, downloads: Downloads, progress: TransferProgress) -> None:
        gaps = self._gaps[digest]
        copy = self._copies.get(digest)
        content = read_chunk(*copy) if copy else None
        if content is None:
            content = downloads.fetch(gaps[0].chunk, gaps[0].name)
            progress.advance(len(content))
        for gap in gaps:
            with gap.path.open("r+b") as file:
                file.seek(gap.chunk.offset)
                file.write(content)

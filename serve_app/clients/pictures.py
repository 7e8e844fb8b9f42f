"""The pictures at a path: one file, or those of a folder."""

from pathlib import Path

from serve_app.detection.preprocess import ENDINGS
from serve_app.errors import InvalidRequestError

MAX_IN_MEMORY = 1000


def picture_paths(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InvalidRequestError(f"{path}: there is no such file or folder")
    found = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in ENDINGS and entry.is_file())
    if not found:
        raise InvalidRequestError(f"{path} has no pictures ({', '.join(ENDINGS)})")
    return found


def read_pictures(path: Path) -> list[bytes]:
    return [picture.read_bytes() for picture in picture_paths(path)[:MAX_IN_MEMORY]]

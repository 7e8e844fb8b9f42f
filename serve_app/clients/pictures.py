"""The pictures that a person points at: one, or those of a folder."""

from pathlib import Path

from serve_app.detection.preprocess import ENDINGS
from serve_app.errors import InvalidRequestError

MOST_IN_MEMORY = 1000


def picture_paths(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise InvalidRequestError(f"{place}: there is no such file or folder")
    found = sorted(path for path in place.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
    if not found:
        raise InvalidRequestError(f"{place} has no pictures ({', '.join(ENDINGS)})")
    return found


def pictures_in(place: Path) -> list[bytes]:
    return [path.read_bytes() for path in picture_paths(place)[:MOST_IN_MEMORY]]

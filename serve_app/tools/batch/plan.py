"""The plan of a run: pictures in shards, each stored whole or not at all, so that a later run can continue."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serve_app.errors import InvalidRequestError
from serve_app.tools.batch.places import PART, Place

PLAN = "plan.json"
DETECTIONS, ERRORS = "detections", "errors"


@dataclass(frozen=True, slots=True)
class Shard:
    """Pictures whose results go into one file of each table."""

    number: int
    pictures: tuple[str, ...]

    @property
    def file(self) -> str:
        return f"shard-{self.number:06}.parquet"


class Plan:
    """The shards of a destination, stored there as plan.json."""

    def __init__(self, destination: str) -> None:
        self.place = Place.of(destination)

    def update(self, pictures: Sequence[str], options: dict[str, object], shard_pictures: int) -> list[Shard]:
        """Return the shards of earlier runs, and further ones for new pictures; store them if they changed."""
        known = self._read()
        if known and known["how"] != options:
            raise InvalidRequestError(
                f"{self.place} has results of {_text(known['how'])}, not of {_text(options)}: use another destination"
            )
        shards = [Shard(number, tuple(names)) for number, names in enumerate(known["shards"])] if known else []
        planned = {name for shard in shards for name in shard.pictures}
        new = [name for name in pictures if name not in planned]
        shards += [
            Shard(len(shards) + index, tuple(new[start : start + shard_pictures]))
            for index, start in enumerate(range(0, len(new), shard_pictures))
        ]
        if new:
            document = {"how": options, "shards": [shard.pictures for shard in shards]}
            (self.place / PLAN).write(json.dumps(document).encode())
        return shards

    def _read(self) -> dict[str, Any]:
        if self.place.path + "/" + PLAN not in self.place.files(recursive=False):
            return {}
        document: dict[str, Any] = json.loads((self.place / PLAN).read())
        return document

    def unfinished(self, shards: Sequence[Shard]) -> list[Shard]:
        """Return the shards without a file of detections, which is written last; delete incomplete files."""
        for table in (DETECTIONS, ERRORS):
            for path in (self.place / table).files():
                if path.endswith(PART):
                    self.place.system.delete_file(path)
        done = {path.rpartition("/")[2] for path in (self.place / DETECTIONS).files()}
        return [shard for shard in shards if shard.file not in done]


def _text(options: dict[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())

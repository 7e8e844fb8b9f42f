"""What is to do and what is done: shards of pictures, each of which is stored whole or not at all."""

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
    """Some pictures that go into one file of each table."""

    number: int
    pictures: tuple[str, ...]

    @property
    def file(self) -> str:
        return f"shard-{self.number:06}.parquet"


class Ledger:
    """In the destination, beside the tables: a run that goes on finds the same shards again."""

    def __init__(self, destination: str) -> None:
        self.place = Place.of(destination)

    def plan(self, pictures: Sequence[str], how: dict[str, object], shard_pictures: int) -> list[Shard]:
        """The shards of an earlier run with the same engine, and further ones for pictures that are new."""
        known = self._read()
        if known and known["how"] != how:
            raise InvalidRequestError(
                f"{self.place} has results of {known['how']}, and these would be of {how}: take another destination"
            )
        shards = [Shard(number, tuple(names)) for number, names in enumerate(known["shards"])] if known else []
        planned = {name for shard in shards for name in shard.pictures}
        new = [name for name in pictures if name not in planned]
        shards += [
            Shard(len(shards) + index, tuple(new[start : start + shard_pictures]))
            for index, start in enumerate(range(0, len(new), shard_pictures))
        ]
        if new:
            document = {"how": how, "shards": [shard.pictures for shard in shards]}
            (self.place / PLAN).write(json.dumps(document).encode())
        return shards

    def _read(self) -> dict[str, Any]:
        if self.place.path + "/" + PLAN not in self.place.files(recursive=False):
            return {}
        document: dict[str, Any] = json.loads((self.place / PLAN).read())
        return document

    def open(self, shards: Sequence[Shard]) -> list[Shard]:
        """Those that aren't done: the file of detections is the last that a shard writes. Halves of files go."""
        for table in (DETECTIONS, ERRORS):
            for path in (self.place / table).files():
                if path.endswith(PART):
                    self.place.system.delete_file(path)
        done = {path.rpartition("/")[2] for path in (self.place / DETECTIONS).files()}
        return [shard for shard in shards if shard.file not in done]

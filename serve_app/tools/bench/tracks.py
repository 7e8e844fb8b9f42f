"""The ladder of tracks on a service that runs: which there are, whether they see the same, and how fast each is."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

import httpx

from serve_app.clients.detection.rest import FIELDS
from serve_app.tools.bench.connection import post
from serve_app.tools.bench.load import Generator, Outcome, Plan
from serve_app.types import Detection

SAME_IOU, SAME_SCORE = 0.99, 0.01


@dataclass(frozen=True, slots=True)
class Target:
    """A track of one size."""

    track: str
    size: str
    path: str
    model: str


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: a track under a load."""

    track: str
    path: str
    model: str
    clients: int
    rate_per_s: float | None
    outcome: Outcome
    batches: Counter[int] = field(default_factory=Counter)


class Service:
    """What is asked of it besides the load."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=60)

    def targets(self) -> list[Target]:
        rows = self._client.get("/tracks").raise_for_status().json()["tracks"]
        return [Target(row["track"], row["size"], row["path"], row["model"]["name"]) for row in rows]

    def detect(self, path: str, picture: bytes) -> list[dict[str, Any]]:
        return list(self._client.post(path, content=picture).raise_for_status().json()["detections"])

    def batches(self) -> Counter[int]:
        """How many executions there were of each batch size, of all models together."""
        seen: Counter[int] = Counter()
        for row in self._client.get("/v2/models/stats").raise_for_status().json()["model_stats"]:
            for batch in row["batch_stats"]:
                seen[int(batch["batch_size"])] += int(batch["compute_infer"]["count"])
        return seen


def measure(
    service: Service,
    target: Target,
    pictures: Sequence[bytes],
    clients: int,
    rate: float | None,
    duration_s: float,
    warmup_s: float,
) -> Row:
    requests = [post(service.url, target.path, picture) for picture in pictures]
    before = service.batches()
    outcome = Generator(Plan(service.url, requests, clients, duration_s, warmup_s, rate)).run()
    batches = service.batches() - before
    return Row(target.track, target.path, target.model, clients, rate, outcome, batches)


def as_rows(detections: Sequence[Detection]) -> list[dict[str, Any]]:
    """As the service answers them."""
    return [dict(zip(FIELDS, astuple(one), strict=True)) for one in detections]


def differences(expected: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> list[str]:
    """In words, what one track sees otherwise than another."""
    told = []
    if len(expected) != len(found):
        told.append(f"{len(found)} detections instead of {len(expected)}")
    for one, other in zip(expected, found, strict=False):
        if one["class"] != other["class"]:
            told.append(f"{other['class_name']} instead of {one['class_name']}")
        elif overlap(one, other) < SAME_IOU or abs(one["confidence"] - other["confidence"]) > SAME_SCORE:
            told.append(f"a {one['class_name']} with IoU {overlap(one, other):.3f}")
    return told


def overlap(one: dict[str, Any], other: dict[str, Any]) -> float:
    width = min(one["x2"], other["x2"]) - max(one["x1"], other["x1"])
    height = min(one["y2"], other["y2"]) - max(one["y1"], other["y1"])
    shared = max(0.0, width) * max(0.0, height)
    areas = sum((box["x2"] - box["x1"]) * (box["y2"] - box["y1"]) for box in (one, other))
    return float(shared / (areas - shared)) if areas > shared else 0.0

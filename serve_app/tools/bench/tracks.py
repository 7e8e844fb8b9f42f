"""The tracks of a running service under load: measurement, table, JSON rows and chart."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console

from serve_app.keys.headers import key_headers
from serve_app.tools.arguments import api_key
from serve_app.tools.bench.connection import build_post
from serve_app.tools.bench.load import Load, LoadResult, run_http_load
from serve_app.tools.bench.report import chart, machine_line, percentiles, print_table


@dataclass(frozen=True, slots=True)
class Track:
    """A track as GET /tracks lists it."""

    name: str
    size: str
    path: str
    model: str


@dataclass(frozen=True, slots=True)
class TrackResult:
    """`batches` counts executions by batch size, from Triton's statistics."""

    track: str
    path: str
    model: str
    load: Load
    result: LoadResult
    batches: Counter[int] = field(default_factory=Counter)

    @property
    def mean_batch(self) -> float:
        executions = self.batches.total()
        return sum(size * count for size, count in self.batches.items()) / executions if executions else 0.0

    def as_dict(self) -> dict[str, Any]:
        return {
            "track": self.track,
            "path": self.path,
            "model": self.model,
            "clients": self.load.clients,
            "rate_per_s": self.load.rate_per_s,
            "images": len(self.result.latencies_ms),
            "images_per_s": round(self.result.throughput, 2),
            "ms": self.result.percentiles_ms,
            "errors": dict(self.result.errors),
            "batches": {str(size): count for size, count in sorted(self.batches.items())},
            "generator_share": round(self.result.generator_share, 3),
            "sent_late_ms": percentiles(self.result.late_ms),
        }


class Service:
    """What a benchmark asks of the service, besides the load."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=60, headers=key_headers(api_key()))

    def tracks(self) -> list[Track]:
        rows = self._client.get("/tracks").raise_for_status().json()["tracks"]
        return [Track(row["track"], row["size"], row["path"], row["model"]["name"]) for row in rows]

    def detect(self, path: str, picture: bytes) -> list[dict[str, Any]]:
        return list(self._client.post(path, content=picture).raise_for_status().json()["detections"])

    def batches(self) -> Counter[int]:
        """Executions by batch size, over all models."""
        counts: Counter[int] = Counter()
        for row in self._client.get("/v2/models/stats").raise_for_status().json()["model_stats"]:
            for batch in row["batch_stats"]:
                counts[int(batch["batch_size"])] += int(batch["compute_infer"]["count"])
        return counts

    def measure(self, track: Track, pictures: Sequence[bytes], load: Load) -> TrackResult:
        requests = [build_post(self.url, track.path, picture, **key_headers(api_key())) for picture in pictures]
        before = self.batches()
        result = run_http_load(self.url, requests, load)
        return TrackResult(track.name, track.path, track.model, load, result, self.batches() - before)


def show(results: Sequence[TrackResult], console: Console) -> None:
    header = ("track", "load", "images/s", "p50 ms", "p90 ms", "p99 ms", "mean batch", "errors")
    rows = []
    for one in results:
        times = [one.result.percentiles_ms.get(key) for key in ("p50", "p90", "p99")]
        errors = ", ".join(f"{count} × {error}" for error, count in one.result.errors.items()) or None
        rows.append((one.track, one.load, one.result.throughput, *times, one.mean_batch, errors))
    print_table(console, header, rows)
    for one in results:
        for warning in one.result.warnings:
            console.print(f"track {one.track}, {one.load}: {warning}")


def draw(results: Sequence[TrackResult], path: Path) -> None:
    """Bars for one load, lines for several."""
    by_track: dict[str, list[TrackResult]] = defaultdict(list)
    for one in results:
        by_track[one.track].append(one)
    with chart(path, 1, 2, figsize=(10, 4)) as (figure, (rates, times)):
        rates.set_ylabel("images/s")
        times.set_ylabel("p99, ms")
        if all(len(of_track) == 1 for of_track in by_track.values()):
            rates.bar(list(by_track), [one.result.throughput for one in results], color="tab:blue")
            times.bar(list(by_track), [one.result.percentiles_ms.get("p99", 0) for one in results], color="tab:red")
            figure.suptitle(f"{results[0].load}, {machine_line()}")
            return
        for name, of_track in by_track.items():
            at = [one.load.rate_per_s or one.load.clients for one in of_track]
            rates.plot(at, [one.result.throughput for one in of_track], marker="o", label=name)
            times.plot(at, [one.result.percentiles_ms.get("p99", 0) for one in of_track], marker="o", label=name)
        rates.set_xlabel("requests/s" if results[0].load.rate_per_s else "clients")
        rates.legend()

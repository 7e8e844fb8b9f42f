"""The detection tracks: their names in URLs, and the models behind them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["baseline", "raw", "end2end", "pipeline"]


@dataclass(frozen=True, slots=True)
class TrackDesign:
    """One design, for all sizes; `suffix` is the end of the URL and of the model's name."""

    name: str
    kind: Kind
    suffix: str
    summary: str


DESIGNS = (
    TrackDesign("A", "baseline", "", "PyTorch, NMS on the CPU"),
    TrackDesign("B", "raw", "", "accelerated engine, NMS outside"),
    TrackDesign("C", "end2end", "_end2end", "engine with NMS inside"),
    TrackDesign("D1", "pipeline", "_gpu_e2e_streaming", "bytes in, low latency, order kept"),
    TrackDesign("D2", "pipeline", "_gpu_e2e", "bytes in, balanced"),
    TrackDesign("D3", "pipeline", "_gpu_e2e_batch", "bytes in, most pictures a second"),
)


@dataclass(frozen=True, slots=True)
class Track:
    """A design for one size."""

    design: TrackDesign
    size: str

    @property
    def target(self) -> str:
        """The part of the URL after /predict/ (or /pytorch/predict/)."""
        return self.size + self.design.suffix

    @property
    def path(self) -> str:
        prefix = "/pytorch/predict/" if self.design.kind == "baseline" else "/predict/"
        return prefix + self.target

    @property
    def model(self) -> str:
        """The model's name; track A's model is not in the model repository."""
        return f"yolo_{self.target}"


def tracks_of(sizes: Iterable[str], baseline_sizes: Iterable[str]) -> list[Track]:
    """Every track of these sizes, in the order of DESIGNS."""
    with_baseline = set(baseline_sizes)
    return [
        Track(design, size)
        for size in sizes
        for design in DESIGNS
        if design.kind != "baseline" or size in with_baseline
    ]

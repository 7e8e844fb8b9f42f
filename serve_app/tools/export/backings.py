"""What a repository's models can run on: the parts of a config.pbtxt that differ between Triton's backends."""

from collections.abc import Callable
from dataclasses import dataclass

from serve_app.tools.export.tiers import Tier

# Engines take pictures one by one, one on each core: 48 pictures a second against 44 in batches of 8 (nano, f32,
# 2 cores; `benchmark_app -m model.xml -shape "images[1,3,640,640]" -nstreams 2 -nthreads 2 -infer_precision f32
# -hint none`).
# So one instance with streams does what two instances do on a GPU, in half the memory.
OPENVINO = """
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "threads" value {{ string_value: "0" }} }}  # 0: one for each core
parameters {{ key: "streams" value {{ string_value: "{streams}" }} }}  # {why_streams}
"""
ON_GPU = """
instance_group [ {{ kind: KIND_GPU count: {instances} }} ]
"""
# In FP32: told to use FP16, TensorRT's provider would decode boxes in it as well.
# ONNX Runtime builds a TensorRT engine for each batch size it meets; without TensorRT it runs on CUDA.
ORT_ACCELERATORS = """\
optimization {
  execution_accelerators {
    gpu_execution_accelerator [
      {
        name: "tensorrt"
        parameters { key: "max_workspace_size_bytes" value: "2147483648" }
        parameters { key: "trt_engine_cache_enable" value: "true" }
        parameters { key: "trt_engine_cache_path" value: "/tmp/serve_app-onnxruntime" }
      }
    ]
  }
}
"""
ORT_ON_CPU = """
instance_group [ { kind: KIND_CPU count: 1 } ]
optimization { execution_accelerators { cpu_execution_accelerator [ { name: "openvino" } ] } }
"""
# The Python backend's process takes the GPU by itself: one each, because every one has a CUDA context of its own.
PYTHON = """
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "engine" value {{ string_value: "{library}" }} }}
parameters {{ key: "device" value {{ string_value: "cuda" }} }}
"""
READER_ON_CPU = """
instance_group [ { kind: KIND_CPU count: 1 } ]
parameters { key: "threads" value { string_value: "0" } }  # 0: one for each core
"""
READER_ON_CPU_WITH_DALI = READER_ON_CPU + 'parameters { key: "device" value { string_value: "cpu" } }\n'
READER_ON_GPU = """
instance_group [ { kind: KIND_GPU count: 1 } ]
parameters { key: "num_threads" value { string_value: "4" } }  # for what the GPU's decoder leaves to the processor
"""
READER_IN_PYTHON = """
instance_group [ { kind: KIND_CPU count: 1 } ]
parameters { key: "threads" value { string_value: "0" } }  # 0: one for each core
parameters { key: "device" value { string_value: "cuda" } }
"""
# A picture that comes again, to another tier or size, is decoded once; only where the deployment has `cache_mib`.
CACHED = "response_cache { enable: true }\n"
PYTHON_BACKEND = 'backend: "python"'
# A full queue is refused at once. What waits longer than a CPU needs for the whole queue is refused too; a GPU is
# through with it in a second.
CPU_QUEUE_TIMEOUT_US = 10_000_000
GPU_QUEUE_TIMEOUT_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Backing:
    """One way to run every model: its backend, and the one that reads pictures for track D."""

    name: str
    engine: str
    engine_tail: Callable[[Tier | None], str]
    reader: str
    reader_tail: str
    queue_timeout_us: int = GPU_QUEUE_TIMEOUT_US
    warms_largest: bool = True  # a GPU's first batch of a size is slow, and the largest tells whether memory is enough
    caches_pictures: bool = False


def _openvino(tier: Tier | None) -> str:
    if tier and tier.low_latency:
        why = "all threads for one picture: the shortest way for a single one"
        return OPENVINO.format(streams="1", why_streams=why)
    why = "0: a picture on each thread, which gives the most pictures a second"
    return OPENVINO.format(streams="0", why_streams=why)


def _on_gpu(tier: Tier | None) -> str:
    return ON_GPU.format(instances=tier.gpu_instances if tier else 2)


def _python(library: str) -> Callable[[Tier | None], str]:
    return lambda _tier: PYTHON.format(library=library)


OPENVINO_BACKING = Backing(
    "openvino", PYTHON_BACKEND, _openvino, PYTHON_BACKEND, READER_ON_CPU, CPU_QUEUE_TIMEOUT_US,
    warms_largest=False, caches_pictures=True,
)  # fmt: skip
TENSORRT = Backing("tensorrt", 'platform: "tensorrt_plan"', _on_gpu, 'backend: "dali"', READER_ON_GPU)
# Beside config.pbtxt, in configs/NAME.pbtxt: the same models on something else.
ALTERNATIVES = (
    Backing(
        "onnxruntime", 'backend: "onnxruntime"', lambda tier: _on_gpu(tier) + ORT_ACCELERATORS,
        'backend: "dali"', READER_ON_GPU,
    ),
    Backing(
        "onnxruntime-cpu", 'backend: "onnxruntime"', lambda _tier: ORT_ON_CPU, PYTHON_BACKEND, READER_ON_CPU_WITH_DALI,
        CPU_QUEUE_TIMEOUT_US, warms_largest=False,
    ),
    *(
        Backing(
            f"python-{library}", PYTHON_BACKEND, _python(library), PYTHON_BACKEND, READER_IN_PYTHON,
            CPU_QUEUE_TIMEOUT_US, warms_largest=False,
        )
        for library in ("onnxruntime", "torch")
    ),
)  # fmt: skip

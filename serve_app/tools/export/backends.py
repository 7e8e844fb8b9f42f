"""The backends that a repository's models can run on: the parts of a config.pbtxt that differ between them."""

from collections.abc import Callable
from dataclasses import dataclass

# Engines run pictures one by one, one on each core: 48 pictures a second against 44 in batches of 8 (nano, f32,
# 2 cores; `benchmark_app -m model.xml -shape "images[1,3,640,640]" -nstreams 2 -nthreads 2 -infer_precision f32
# -hint none`). So one instance with streams does what two instances do on a GPU, in half the memory.
OPENVINO_INSTANCES = """
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "threads" value {{ string_value: "0" }} }}  # 0: one per core
parameters {{ key: "streams" value {{ string_value: "{streams}" }} }}  # {comment}
"""
GPU_INSTANCES = """
instance_group [ {{ kind: KIND_GPU count: {instances} }} ]
"""
# No FP16 option here: with it TensorRT's provider would decode boxes in FP16 as well.
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
# One instance, because every process of the Python backend has a CUDA context of its own. KIND_CPU, because the
# process takes the GPU by itself.
PYTHON_INSTANCE = """
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "engine" value {{ string_value: "{library}" }} }}
parameters {{ key: "device" value {{ string_value: "cuda" }} }}
"""
READER_ON_CPU = """
instance_group [ { kind: KIND_CPU count: 1 } ]
parameters { key: "threads" value { string_value: "0" } }  # 0: one per core
"""
READER_ON_CPU_WITH_DALI = READER_ON_CPU + 'parameters { key: "device" value { string_value: "cpu" } }\n'
READER_IN_PYTHON = READER_ON_CPU + 'parameters { key: "device" value { string_value: "cuda" } }\n'
READER_ON_GPU = """
instance_group [ { kind: KIND_GPU count: 1 } ]
parameters { key: "num_threads" value { string_value: "4" } }  # for the part of decoding that stays on the CPU
"""
# A picture that is sent again, to another tier or size, is decoded once. Takes effect where the deployment sets
# `cache_mib`.
CACHED = "response_cache { enable: true }\n"
PYTHON_BACKEND = 'backend: "python"'
# A full queue refuses at once. The timeouts are what a CPU, or a GPU, needs for a full queue.
CPU_QUEUE_TIMEOUT_US = 10_000_000
GPU_QUEUE_TIMEOUT_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to run every model: a backend for engines, and one for reading pictures in track D."""

    name: str
    engine: str
    engine_instances: Callable[[int, bool], str]  # number of instances on a GPU, low latency
    reader: str
    reader_instances: str
    queue_timeout_us: int = GPU_QUEUE_TIMEOUT_US
    warms_largest: bool = True  # a GPU's first batch of a size is slow, and the largest shows whether memory suffices
    caches_pictures: bool = False


def _openvino_instances(_instances: int, low_latency: bool) -> str:
    if low_latency:
        return OPENVINO_INSTANCES.format(streams="1", comment="all threads work on one picture: lowest latency")
    return OPENVINO_INSTANCES.format(streams="0", comment="0: one picture per thread, highest throughput")


def _gpu_instances(instances: int, _low_latency: bool) -> str:
    return GPU_INSTANCES.format(instances=instances)


def _python_instance(library: str) -> Callable[[int, bool], str]:
    return lambda _instances, _low_latency: PYTHON_INSTANCE.format(library=library)


OPENVINO = Backend(
    "openvino", PYTHON_BACKEND, _openvino_instances, PYTHON_BACKEND, READER_ON_CPU, CPU_QUEUE_TIMEOUT_US,
    warms_largest=False, caches_pictures=True,
)  # fmt: skip
TENSORRT = Backend("tensorrt", 'platform: "tensorrt_plan"', _gpu_instances, 'backend: "dali"', READER_ON_GPU)
# The same models on other backends; written beside config.pbtxt as configs/NAME.pbtxt.
ALTERNATIVES = (
    Backend(
        "onnxruntime", 'backend: "onnxruntime"',
        lambda instances, low_latency: _gpu_instances(instances, low_latency) + ORT_ACCELERATORS,
        'backend: "dali"', READER_ON_GPU,
    ),
    Backend(
        "onnxruntime-cpu", 'backend: "onnxruntime"', lambda _instances, _low_latency: ORT_ON_CPU,
        PYTHON_BACKEND, READER_ON_CPU_WITH_DALI, CPU_QUEUE_TIMEOUT_US, warms_largest=False,
    ),
    *(
        Backend(
            f"python-{library}", PYTHON_BACKEND, _python_instance(library), PYTHON_BACKEND, READER_IN_PYTHON,
            CPU_QUEUE_TIMEOUT_US, warms_largest=False,
        )
        for library in ("onnxruntime", "torch")
    ),
)  # fmt: skip

"""The config.pbtxt of every model in the CPU repository; what is committed was written by this."""

from collections.abc import Mapping
from dataclasses import dataclass

from serve_app.export.onnx_graph import MAX_DETECTIONS

# How engines and requests are told what a model is for.
RAW, END2END, TIER = "raw", "end2end", "tier"

END2END_OUTPUTS = (
    ("num_dets", "TYPE_INT32", "1"),
    ("det_boxes", "TYPE_FP32", f"{MAX_DETECTIONS}, 4"),
    ("det_scores", "TYPE_FP32", f"{MAX_DETECTIONS}"),
    ("det_classes", "TYPE_INT32", f"{MAX_DETECTIONS}"),
)
RAW_OUTPUTS = (("output0", "TYPE_FP32", "-1, -1"),)


@dataclass(frozen=True, slots=True)
class Tier:
    """One throughput-latency compromise of track D."""

    suffix: str
    name: str
    max_batch: int
    window_us: int
    keeps_order: bool
    low_latency: bool = False


TIERS = (
    Tier("_gpu_e2e_streaming", "streaming", 8, 100, True, low_latency=True),
    Tier("_gpu_e2e", "balanced", 64, 500, False),
    Tier("_gpu_e2e_batch", "batch", 128, 5000, False),
)
PREPROCESS = "yolo_preprocess"

HEADER = """\
# {purpose}
name: "{name}"
{engine}
max_batch_size: {max_batch}
"""

# Engines take pictures one by one, one on each core: 48 pictures a second against 44 in batches of 8 (nano, f32,
# 2 cores; `benchmark_app -m model.xml -shape "images[1,3,640,640]" -nstreams 2 -nthreads 2 -infer_precision f32
# -hint none`).
# So one instance with streams does what two instances do on a GPU, in half the memory.
ENGINE_TAIL = """
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "threads" value {{ string_value: "0" }} }}  # 0: one for each core
parameters {{ key: "streams" value {{ string_value: "{streams}" }} }}  # {why_streams}
version_policy {{ latest {{ num_versions: 1 }} }}
model_warmup [
  {{
    name: "zeros"
    batch_size: 1
    inputs {{ key: "images" value {{ data_type: {images_type} dims: [ {images_dims} ] zero_data: true }} }}
  }}
]
"""

# A full queue is refused at once. What waits longer than a CPU needs for the whole queue is refused too.
BATCHING = """
dynamic_batching {{
{preferred}  max_queue_delay_microseconds: {window_us}
  preserve_ordering: {order}
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {timeout_us}
    max_queue_size: 128
  }}
}}
"""
QUEUE_TIMEOUT_US = 10_000_000


def _tensors(kind: str, tensors: tuple[tuple[str, str, str], ...]) -> str:
    rows = ",\n".join(f'  {{ name: "{name}" data_type: {dtype} dims: [ {dims} ] }}' for name, dtype, dims in tensors)
    return f"{kind} [\n{rows}\n]\n"


def _batching(window_us: int, order: bool, preferred: str = "") -> str:
    line = f"  preferred_batch_size: [ {preferred} ]\n" if preferred else ""
    return BATCHING.format(preferred=line, window_us=window_us, order=str(order).lower(), timeout_us=QUEUE_TIMEOUT_US)


def engine_config(name: str, purpose: str, kind: str, side: int, tier: Tier | None = None) -> str:
    """A model that runs an engine on `images`."""
    images = ("TYPE_UINT8", f"{side}, {side}, 3") if kind == TIER else ("TYPE_FP32", f"3, {side}, {side}")
    max_batch = tier.max_batch if tier else 64
    batching = _batching(tier.window_us, tier.keeps_order) if tier else _batching(5000, False, "4, 8, 16, 32")
    outputs = RAW_OUTPUTS if kind == RAW else END2END_OUTPUTS
    return (
        HEADER.format(purpose=purpose, name=name, engine='backend: "python"', max_batch=max_batch)
        + _tensors("input", (("images", *images),))
        + _tensors("output", outputs)
        + batching
        + ENGINE_TAIL.format(images_type=images[0], images_dims=images[1], **_streams(tier))
    )


def _streams(tier: Tier | None) -> dict[str, str]:
    if tier and tier.low_latency:
        return {"streams": "1", "why_streams": "all threads for one picture: the shortest way for a single one"}
    return {"streams": "0", "why_streams": "0: a picture on each thread, which gives the most pictures a second"}


def preprocess_config(side: int) -> str:
    """The first step of track D: a picture's bytes to the engine's square."""
    text = HEADER.format(
        purpose="Decodes and letterboxes pictures for every tier of track D.",
        name=PREPROCESS, engine='backend: "python"', max_batch=128,
    )  # fmt: skip
    text += 'input [\n  { name: "encoded" data_type: TYPE_UINT8 dims: [ -1 ] allow_ragged_batch: true }\n]\n'
    outputs = (("images", "TYPE_UINT8", f"{side}, {side}, 3"), ("original_size", "TYPE_INT32", "2"))
    text += _tensors("output", outputs)
    # no window: waiting is the engine's business, where batches form
    text += _batching(0, False).replace("preserve_ordering: false", "preserve_ordering: true")
    return text + (
        "\ninstance_group [ { kind: KIND_CPU count: 1 } ]\n"
        'parameters { key: "threads" value { string_value: "0" } }  # 0: one for each core\n'
        "version_policy { latest { num_versions: 1 } }\n"
    )


def pipeline_config(size: str, tier: Tier) -> str:
    """Track D: preprocessing and engine in one request."""
    outputs = (*END2END_OUTPUTS, ("original_size", "TYPE_INT32", "2"))
    text = HEADER.format(
        purpose=f"Track D, {tier.name}: bytes of a picture in, detections out.",
        name=f"yolo_{size}{tier.suffix}", engine='platform: "ensemble"', max_batch=tier.max_batch,
    )  # fmt: skip
    text += _tensors("input", (("encoded", "TYPE_UINT8", "-1"),)) + _tensors("output", outputs)
    first = _step(PREPROCESS, {"encoded": "encoded"}, {"images": "letterboxed", "original_size": "original_size"})
    names = {name: name for name, _, _ in END2END_OUTPUTS}
    second = _step(tier_engine_name(size, tier), {"images": "letterboxed"}, names)
    return text + f"ensemble_scheduling {{\n  step [\n{first},\n{second}\n  ]\n}}\n"


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    maps = [("input_map", key, value) for key, value in inputs.items()]
    maps += [("output_map", key, value) for key, value in outputs.items()]
    lines = "\n".join(f'      {kind} {{ key: "{key}" value: "{value}" }}' for kind, key, value in maps)
    return f'    {{\n      model_name: "{model}"\n      model_version: -1\n{lines}\n    }}'


def tier_engine_name(size: str, tier: Tier) -> str:
    return f"yolo_{size}_engine_{tier.name}"

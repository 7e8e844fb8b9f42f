"""The config.pbtxt of every model in a repository, and the tiers of track D that they are written for."""

from collections.abc import Mapping
from dataclasses import dataclass

from serve_app.detection.onnx_nms import MAX_DETECTIONS
from serve_app.tools.export.backends import CACHED, Backend

# The three graphs that engines are made from: no NMS; NMS inside; NMS inside and letterboxed bytes as input.
RAW, END2END, TIER = "raw", "end2end", "tier"
PREPROCESS = "yolo_preprocess"


@dataclass(frozen=True, slots=True)
class Tier:
    """One tradeoff of track D between latency and throughput."""

    suffix: str
    name: str
    max_batch: int
    window_us: int
    keeps_order: bool
    gpu_instances: int
    low_latency: bool = False


TIERS = (
    Tier("_gpu_e2e_streaming", "streaming", 8, 100, True, 3, low_latency=True),
    Tier("_gpu_e2e", "balanced", 64, 500, False, 2),
    Tier("_gpu_e2e_batch", "batch", 128, 5000, False, 1),
)

END2END_OUTPUTS = (
    ("num_dets", "TYPE_INT32", "1"),
    ("det_boxes", "TYPE_FP32", f"{MAX_DETECTIONS}, 4"),
    ("det_scores", "TYPE_FP32", f"{MAX_DETECTIONS}"),
    ("det_classes", "TYPE_INT32", f"{MAX_DETECTIONS}"),
)
RAW_OUTPUTS = (("output0", "TYPE_FP32", "-1, -1"),)
ENGINE_MAX_BATCH = 64
ENGINE_GPU_INSTANCES = 2
PREPROCESS_MAX_BATCH = 128

HEADER = """\
# {purpose}
name: "{name}"
{engine}
max_batch_size: {max_batch}
"""

WARM_UP = """
  {{
    name: "zeros{of}"
    batch_size: {batch}
    inputs {{ key: "images" value {{ data_type: {kind} dims: [ {dims} ] zero_data: true }} }}
  }}"""

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


def tier_engine_name(size: str, tier: Tier) -> str:
    return f"yolo_{size}_engine_{tier.name}"


def _tensors(kind: str, tensors: tuple[tuple[str, str, str], ...]) -> str:
    rows = ",\n".join(f'  {{ name: "{name}" data_type: {dtype} dims: [ {dims} ] }}' for name, dtype, dims in tensors)
    return f"{kind} [\n{rows}\n]\n"


def _batching(backend: Backend, window_us: int, order: bool, preferred: str = "") -> str:
    line = f"  preferred_batch_size: [ {preferred} ]\n" if preferred else ""
    return BATCHING.format(
        preferred=line, window_us=window_us, order=str(order).lower(), timeout_us=backend.queue_timeout_us
    )


def engine_config(backend: Backend, name: str, purpose: str, kind: str, side: int, tier: Tier | None = None) -> str:
    """A model that runs an engine on `images`."""
    images = ("TYPE_UINT8", f"{side}, {side}, 3") if kind == TIER else ("TYPE_FP32", f"3, {side}, {side}")
    max_batch = tier.max_batch if tier else ENGINE_MAX_BATCH
    window, order, preferred = (tier.window_us, tier.keeps_order, "") if tier else (5000, False, "4, 8, 16, 32")
    batching = _batching(backend, window, order, preferred)
    instances = tier.gpu_instances if tier else ENGINE_GPU_INSTANCES
    outputs = RAW_OUTPUTS if kind == RAW else END2END_OUTPUTS
    return (
        HEADER.format(purpose=purpose, name=name, engine=backend.engine, max_batch=max_batch)
        + _tensors("input", (("images", *images),))
        + _tensors("output", outputs)
        + batching
        + backend.engine_instances(instances, bool(tier and tier.low_latency))
        + "version_policy { latest { num_versions: 1 } }\n"
        + _warm_up(images, (1, max_batch) if backend.warms_largest else (1,))
    )


def _warm_up(images: tuple[str, str], batches: tuple[int, ...]) -> str:
    kind, dims = images
    rounds = (
        WARM_UP.format(of=f" of {batch}" if len(batches) > 1 else "", batch=batch, kind=kind, dims=dims)
        for batch in batches
    )
    return f"model_warmup [{','.join(rounds)}\n]\n"


def preprocess_config(backend: Backend, side: int) -> str:
    """The first step of track D: turns the bytes of a picture into the engine's square."""
    text = HEADER.format(
        purpose="Decodes and letterboxes pictures for every tier of track D.",
        name=PREPROCESS, engine=backend.reader, max_batch=PREPROCESS_MAX_BATCH,
    )  # fmt: skip
    text += 'input [\n  { name: "encoded" data_type: TYPE_UINT8 dims: [ -1 ] allow_ragged_batch: true }\n]\n'
    outputs = (("images", "TYPE_UINT8", f"{side}, {side}, 3"), ("original_size", "TYPE_INT32", "2"))
    text += _tensors("output", outputs)
    # no delay here: batches form at the engine
    text += _batching(backend, 0, True)
    cached = CACHED if backend.caches_pictures else ""
    return text + backend.reader_instances + cached + "version_policy { latest { num_versions: 1 } }\n"


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

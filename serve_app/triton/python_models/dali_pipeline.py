"""The DALI pipeline that preprocesses pictures for track D, on the CPU and on GPUs."""

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any, Literal

from nvidia.dali import __version__ as dali_version
from nvidia.dali import fn, math, types
from nvidia.dali.pipeline import Pipeline

from serve_app.detection.preprocess import PADDING_GREY

# Adding and subtracting 2^52 leaves no bits for a fraction: IEEE 754 rounds half to even, like Python's round().
NO_FRACTION = 2.0**52


def build_pipeline(
    side: int, max_batch: int, threads: int, device: Literal["cpu", "cuda"], device_id: int | None = None
) -> Pipeline:
    """`encoded` → `images` ([side,side,3]) and `original_size` (width, height); `device_id` None: the current GPU."""
    pipeline = Pipeline(
        max_batch,
        threads,
        device_id,
        # Each batch arrives after the previous one is answered: there is nothing to prefetch or to overlap.
        prefetch_queue_depth=1,
        exec_pipelined=False,
        exec_async=False,
        # Triton's DALI backend always uses this executor.
        exec_dynamic=False,
        # Triton's DALI backend checks these against config.pbtxt.
        output_dtype=[types.UINT8, types.INT32],
        output_ndim=[3, 1],
    )
    with pipeline:
        pipeline.set_outputs(*_preprocess(side, device))
    return pipeline


def _preprocess(side: int, device: Literal["cpu", "cuda"]) -> tuple[Any, Any]:
    encoded = fn.external_source(name="encoded", ndim=1, dtype=types.UINT8)
    pixels = fn.decoders.image(
        encoded,
        device="mixed" if device == "cuda" else "cpu",
        output_type=types.RGB,
        adjust_orientation=True,
        jpeg_fancy_upsampling=True,  # like libjpeg-turbo on the CPU; by default GPUs repeat neighbouring colours
    )
    # From the header, because the pixels may be on the GPU, and this executor can't copy from there.
    shape = fn.peek_image_shape(encoded, adjust_orientation=True, dtype=types.INT32)
    width, height = shape[1], shape[0]
    inner_width, inner_height, left, top = fit_letterbox(width, height, side)
    inner = fn.resize(
        pixels,
        resize_x=fn.cast(inner_width, dtype=types.FLOAT),
        resize_y=fn.cast(inner_height, dtype=types.FLOAT),
        interp_type=types.INTERP_LINEAR,
        antialias=False,
    )
    images = fn.slice(
        inner,
        start=fn.stack(-top, -left),
        shape=[side, side],
        axes=[0, 1],
        out_of_bounds_policy="pad",
        fill_values=PADDING_GREY,
        name="images",
    )
    return images, fn.stack(width, height, name="original_size")


def fit_letterbox(width: Any, height: Any, side: int) -> tuple[Any, Any, Any, Any]:
    """`Letterbox.fit` as part of a pipeline: inner width and height, left, top."""
    exact_width, exact_height = fn.cast(width, dtype=types.FLOAT64), fn.cast(height, dtype=types.FLOAT64)
    gain = math.min(side / exact_height, side / exact_width)
    inner_width, inner_height = _inner_side(exact_width * gain), _inner_side(exact_height * gain)
    # The same as round(half of it - 0.1), whose argument is never halfway between two integers.
    return inner_width, inner_height, (side - inner_width) // 2, (side - inner_height) // 2


def _inner_side(exact: Any) -> Any:
    return fn.cast(math.max(exact + NO_FRACTION - NO_FRACTION, 1.0), dtype=types.INT32)


def pipeline_key(side: int, max_batch: int, threads: int) -> str:
    """Everything that a written pipeline depends on; it must be written again when this changes."""
    definition = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    key = {"side": side, "max_batch": max_batch, "threads": threads, "dali": dali_version, "definition": definition}
    return json.dumps(key, indent=2) + "\n"


def write_pipeline(path: Path, side: int, max_batch: int, threads: int) -> None:
    """Write the `model.dali` of Triton's DALI backend; needs neither a GPU nor its driver."""
    # Without a device id DALI doesn't load CUDA; the backend uses its instance's device.
    pipeline = build_pipeline(side, max_batch, threads, "cuda", device_id=None)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as scratch:
        written = Path(scratch) / path.name
        written.write_bytes(pipeline.serialize())
        written.replace(path)

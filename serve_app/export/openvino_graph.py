"""OpenVINO engines from ONNX graphs: as they are, or quantized to int8 with calibration pictures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import openvino as ov

from serve_app.detection.preprocess import as_unit_planes, decode, letterbox
from serve_app.errors import ConfigurationError
from serve_app.types import Pixels

CALIBRATION_PICTURES = 128
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
MAX_CALIBRATION_PIXELS = 64_000_000


def write_engine(graph: onnx.ModelProto, target: Path, precision: str, calibration: Path | None) -> None:
    """Save `graph` as OpenVINO IR; bf16 is a matter of running it, int8 of the file."""
    source = target.with_suffix(".onnx")
    onnx.save(graph, source)
    model = ov.Core().read_model(source)
    if precision == "int8":
        model = quantize(model, calibration)
    ov.save_model(model, target, compress_to_fp16=False)
    source.unlink()


def quantize(model: ov.Model, calibration: Path | None) -> ov.Model:
    """Quantize convolutions; where boxes are decoded and suppressed every pixel counts, so that stays in f32."""
    import nncf

    side_first = model.input("images").partial_shape[1].get_length() != 3
    side = model.input("images").partial_shape[2].get_length()
    samples = [_inputs_of(model, square, side_first) for square in calibration_squares(calibration, side)]
    return nncf.quantize(
        model,
        nncf.Dataset(samples),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(samples),
        ignored_scope=nncf.IgnoredScope(subgraphs=[], names=_tail_names(model), validate=False),
    )


def _inputs_of(model: ov.Model, square: Pixels, side_first: bool) -> dict[str, npt.NDArray[np.generic]]:
    inputs: dict[str, npt.NDArray[np.generic]] = {"images": square[None] if side_first else as_unit_planes(square)}
    if len(model.inputs) > 1:
        inputs["score_threshold"] = np.array([0.25], np.float32)
        inputs["iou_threshold"] = np.array([0.7], np.float32)
    return inputs


def _tail_names(model: ov.Model) -> list[str]:
    """Every operation after the last convolutions of the head, and the distribution that box sides come from."""
    names: set[str] = set()
    waiting = [result.input_value(0).get_node() for result in model.get_results()]
    while waiting:
        node = waiting.pop()
        name = node.get_friendly_name()
        if name in names or (node.get_type_name() == "Convolution" and "dfl" not in name):
            continue
        names.add(name)
        waiting += [node.input_value(i).get_node() for i in range(node.get_input_size())]
    constants = {op.get_friendly_name() for op in model.get_ops() if op.get_type_name() in ("Constant", "Parameter")}
    return sorted(names - constants)


def calibration_squares(folder: Path | None, side: int) -> Iterator[Pixels]:
    """Letterboxed pictures: the folder's, else scenes as the demo detector knows them."""
    if folder is None:
        from serve_app.export.demo.scenes import draw_scene

        for seed in range(CALIBRATION_PICTURES):
            picture = np.ascontiguousarray(draw_scene(1_000_000 + seed).image[:, :, ::-1])
            yield letterbox(picture, side)[0]
        return
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    if not files:
        raise ConfigurationError(f"calibration: no pictures under {folder}")
    for path in files[:CALIBRATION_PICTURES]:
        yield letterbox(decode(path.read_bytes(), MAX_CALIBRATION_PIXELS), side)[0]

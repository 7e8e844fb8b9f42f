"""Writes OpenVINO engines from ONNX graphs, in f32 or quantized to int8 with calibration pictures."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import openvino as ov

from serve_app.detection.preprocess import as_unit_planes
from serve_app.types import Pixels


def write_engine(graph: onnx.ModelProto, target: Path, squares: Iterable[Pixels]) -> None:
    """Save `graph` as OpenVINO IR in f32, or in int8 if there are squares; bf16 is chosen when the IR is loaded."""
    source = target.with_suffix(".onnx")
    onnx.save(graph, source)
    model = ov.Core().read_model(source)
    if samples := list(squares):
        model = quantize(model, samples)
    ov.save_model(model, target, compress_to_fp16=False)
    source.unlink()


def quantize(model: ov.Model, squares: Sequence[Pixels]) -> ov.Model:
    """Quantize the convolutions; decoding boxes and NMS stay in f32, where a rounded coordinate would move boxes."""
    import nncf

    side_first = model.input("images").partial_shape[1].get_length() != 3
    samples = [_inputs_of(model, square, side_first) for square in squares]
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
    """Names of the operations after the head's last convolutions, the DFL of the box sides included."""
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

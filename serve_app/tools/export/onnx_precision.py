"""Converts raw graphs to half precision, int8 or FP8.

The types are written into the graph because TensorRT 11 takes every tensor's type from there, and TensorRT 10 can. So
both run the same arithmetic, and ONNX Runtime can measure its accuracy without a GPU.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper
from onnx.compose import merge_models
from onnx.shape_inference import infer_shapes
from onnx.utils import Extractor

from serve_app.detection.preprocess import as_unit_planes
from serve_app.types import Pixels

INT8_MAX, FP8_MAX = 127.0, 448.0  # what a scale maps the largest value to
# Ranges are averaged over pictures: a single outlier would make every quantization step coarser.
QUANTIZED = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False, "CalibMovingAverage": True}


def reduced(raw: onnx.ModelProto, precision: str, squares: Iterable[Pixels]) -> onnx.ModelProto:
    """Return `raw` in `precision`, calibrated with `squares`; inputs, outputs and the decoding of boxes stay FP32."""
    if precision == "f16":
        return _half(raw)
    if precision == "int8":
        return _int8(raw, squares)
    if precision == "fp8":
        return _fp8(raw, squares)
    return raw


def _half(raw: onnx.ModelProto) -> onnx.ModelProto:
    """Convert the part before the decoding of boxes, then merge the two parts.

    The converter's own list of nodes to keep in FP32 doesn't suffice: tensors between those nodes become FP16.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    decoding = set(decoding_nodes(raw))
    made = {output for node in raw.graph.node if node.name not in decoding for output in node.output}
    read = {name: None for node in raw.graph.node if node.name in decoding for name in node.input if name in made}
    images, outputs = [one.name for one in raw.graph.input], [one.name for one in raw.graph.output]
    extract = Extractor(infer_shapes(raw)).extract_model
    half = OnnxModel(convert_float_to_float16(extract(images, list(read)), keep_io_types=True))
    half.topological_sort()  # the converter appends its casts at the end of the list
    joints = [(name, name) for name in read]
    # a prefix, because constants that both parts read are in both
    model = merge_models(half.model, extract(list(read), outputs), joints, prefix1="half/")
    for node in model.graph.node:
        node.input[:] = [name.removeprefix("half/") if name[5:] in images else name for name in node.input]
    model.graph.input[0].name = images[0]
    del model.opset_import[1:]  # both parts import the same opset
    return model


def _int8(raw: onnx.ModelProto, squares: Iterable[Pixels]) -> onnx.ModelProto:
    """Put convolutions between Q/DQ nodes as TensorRT expects them: symmetric, weights per channel."""
    from onnxruntime.quantization import QuantFormat, quantize_static

    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "raw.onnx", Path(scratch) / "quantized.onnx"
        onnx.save(raw, source)
        quantize_static(
            source, target, Calibration(squares), quant_format=QuantFormat.QDQ, op_types_to_quantize=["Conv"],
            per_channel=True, nodes_to_exclude=[*decoding_nodes(raw), *_outermost(raw)], extra_options=QUANTIZED,
        )  # fmt: skip
        return onnx.load(target)


def _fp8(raw: onnx.ModelProto, squares: Iterable[Pixels]) -> onnx.ModelProto:
    """Convert the int8 graph to E4M3. ONNX Runtime's own FP8 quantization chooses scales that lose every object."""
    model = _int8(raw, squares)
    constants = {one.name: one for one in model.graph.initializer}
    weights = {one.name: numpy_helper.to_array(one) for one in raw.graph.initializer}
    scaled: set[str] = set()
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        values, scale, zero = node.input
        if scale not in scaled:
            scaled.add(scale)
            _replace(constants[scale], numpy_helper.to_array(constants[scale]) * np.float32(INT8_MAX / FP8_MAX))
            _replace(constants[zero], numpy_helper.to_array(constants[zero]).astype(ml_dtypes.float8_e4m3fn))
        if values in constants:  # weights, taken from the original graph because int8 has rounded them
            scales = numpy_helper.to_array(constants[scale]).reshape(-1, 1, 1, 1)
            original = weights[values.removesuffix("_quantized")]
            _replace(constants[values], (original / scales).clip(-FP8_MAX, FP8_MAX).astype(ml_dtypes.float8_e4m3fn))
    del model.graph.value_info[:]  # these still say int8
    return model


def _replace(constant: onnx.TensorProto, values: npt.NDArray[Any]) -> None:
    constant.CopyFrom(numpy_helper.from_array(values, constant.name))


class Calibration:
    """Calibration pictures as ONNX Runtime's CalibrationDataReader."""

    def __init__(self, squares: Iterable[Pixels]) -> None:
        self._squares: Iterator[Pixels] = iter(squares)

    def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
        square = next(self._squares, None)
        return None if square is None else {"images": as_unit_planes(square)}


def _outermost(raw: onnx.ModelProto) -> list[str]:
    """The first and the last convolutions, which are cheap and sensitive.

    In int8 they cost the demo weights 0.007 mAP; the others cost nothing measurable.
    """
    decoding = set(decoding_nodes(raw))
    read = {name for node in raw.graph.node if node.name in decoding for name in node.input}
    convolutions = [node for node in raw.graph.node if node.op_type == "Conv" and node.name not in decoding]
    return [convolutions[0].name, *(node.name for node in convolutions if read & set(node.output))]


def decoding_nodes(raw: onnx.ModelProto) -> list[str]:
    """Names of the nodes after the head's last convolutions, the DFL of the box sides included.

    They must stay in FP32: half precision can't tell a coordinate of 600.1 from 600.4.
    """
    makers = {output: node for node in raw.graph.node for output in node.output}
    found: dict[str, None] = {}
    waiting = [makers[output.name] for output in raw.graph.output]
    while waiting:
        node = waiting.pop()
        if node.name in found or (node.op_type == "Conv" and "dfl" not in node.name):
            continue
        found[node.name] = None
        if node.op_type != "Shape":  # a shape doesn't depend on the values it is read from
            waiting += [makers[name] for name in node.input if name in makers]
    return list(found)

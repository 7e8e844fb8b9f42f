"""The ONNX graph that every engine is built from: the raw detection head, as ultralytics exports it."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from serve_app.errors import ConfigurationError

OPSET = 19  # the first whose QuantizeLinear supports FP8


def export_raw_head(weights: Path, image_size: int, folder: Path, nms: bool = True) -> Path:
    """Export `images` FP32 [batch,3,H,W] → `output0` with ultralytics; only the batch is dynamic."""
    from ultralytics import YOLO

    scratch = folder / weights.name
    scratch.write_bytes(weights.read_bytes())  # ultralytics writes beside the weights, where it may not be allowed to
    model = YOLO(scratch, task="detect")
    if not nms and getattr(model.model.model[-1], "one2one_cv2", None) is None:
        raise ConfigurationError(f"nms: false needs a head without NMS, and {weights.name} has none; YOLO26 has one")
    exported = model.export(
        format="onnx", imgsz=image_size, dynamic=True, simplify=True, opset=OPSET, verbose=False,
        nms=None if nms else False,
    )  # fmt: skip
    graph = onnx.load(exported)
    scratch.unlink()
    fix_image_size(graph, image_size)
    raw = folder / "raw.onnx"
    onnx.save(graph, raw)
    return raw


def fix_image_size(model: onnx.ModelProto, image_size: int) -> None:
    """Fix all dimensions but the batch: engines are faster, and need no profile for height and width."""
    (images,) = model.graph.input
    for axis, size in enumerate((None, 3, image_size, image_size)):
        dim = images.type.tensor_type.shape.dim[axis]
        if size is None:
            dim.dim_param = "batch"
        else:
            dim.dim_value = size
    del model.graph.value_info[:]  # these still have the dynamic sizes
    (output,) = model.graph.output
    shape = output.type.tensor_type.shape
    for axis, size in enumerate(_output_shape(model, image_size)):
        shape.dim[axis].Clear()
        if axis == 0:
            shape.dim[axis].dim_param = "batch"
        else:
            shape.dim[axis].dim_value = size


def _output_shape(model: onnx.ModelProto, image_size: int) -> tuple[int, ...]:
    """Found by running the graph, because ONNX's shape inference fails on some heads."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"images": np.zeros((1, 3, image_size, image_size), np.float32)})
    return tuple(answer.shape)


def free_output(raw: onnx.ModelProto) -> None:
    """Make the output's dimensions dynamic; Triton's ONNX Runtime backend requires it where the config says -1."""
    _batch, *sizes = raw.graph.output[0].type.tensor_type.shape.dim
    for name, dim in zip(("rows", "columns"), sizes, strict=True):
        dim.dim_param = name


def is_end_to_end(raw: onnx.ModelProto) -> bool:
    """Whether the output is [batch, detections, 6], as of YOLO26, and not [batch, 4 + classes, anchors]."""
    return bool(raw.graph.output[0].type.tensor_type.shape.dim[2].dim_value == 6)


def accept_uint8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take `images` as UINT8 [batch,H,W,3], as letterboxing returns them, which is a quarter of the bytes of FP32."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name == "images":
                node.input[position] = "images_unit"
    scale = [
        helper.make_node("Cast", ["images"], ["images_fp32"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["images_fp32"], ["images_planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Div", ["images_planes", "uint8_range"], ["images_unit"]),
    ]
    for position, node in enumerate(scale):
        graph.node.insert(position, node)
    graph.initializer.append(numpy_helper.from_array(np.array(255.0, np.float32), "uint8_range"))
    images = graph.input[0].type.tensor_type
    images.elem_type = TensorProto.UINT8
    side = images.shape.dim[2].dim_value
    for axis, size in ((1, side), (2, side), (3, 3)):
        images.shape.dim[axis].dim_value = size
    onnx.checker.check_model(result)
    return result

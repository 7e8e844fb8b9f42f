"""The ONNX graphs every engine is made from: the raw detection head, and the same with one batched NMS inside."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from serve_app.errors import ConfigurationError

MAX_DETECTIONS = 300
# Ultralytics keeps classes apart in one NMS by moving each class's boxes to a region of its own.
CLASS_OFFSET_PX = 7680.0
OPSET = 17


def export_raw_head(weights: Path, image_size: int, folder: Path, nms: bool = True) -> Path:
    """Write `images` FP32 [batch,3,H,W] → `output0` as ultralytics exports it, with a free batch dimension."""
    from ultralytics import YOLO

    scratch = folder / weights.name
    scratch.write_bytes(weights.read_bytes())  # ultralytics writes beside the weights, which may be read-only
    model = YOLO(scratch, task="detect")
    if not nms and getattr(model.model.model[-1], "one2one_cv2", None) is None:
        raise ConfigurationError(f"nms: false, but {weights.name} has no head that needs no suppression; YOLO26 has")
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
    """Leave only the batch free: engines are faster and need no profile for height and width."""
    (images,) = model.graph.input
    for axis, size in enumerate((None, 3, image_size, image_size)):
        dim = images.type.tensor_type.shape.dim[axis]
        if size is None:
            dim.dim_param = "batch"
        else:
            dim.dim_value = size
    del model.graph.value_info[:]  # they still say what the free sizes would have been
    (output,) = model.graph.output
    shape = output.type.tensor_type.shape
    for axis, size in enumerate(_answered_shape(model, image_size)):
        shape.dim[axis].Clear()
        if axis == 0:
            shape.dim[axis].dim_param = "batch"
        else:
            shape.dim[axis].dim_value = size


def _answered_shape(model: onnx.ModelProto, image_size: int) -> tuple[int, ...]:
    """Asked of the graph itself: shape inference gives up on some heads."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"images": np.zeros((1, 3, image_size, image_size), np.float32)})
    return tuple(answer.shape)


def is_end_to_end(raw: onnx.ModelProto) -> bool:
    """YOLO26's head answers [batch, detections, 6] by itself; the others answer [batch, 4 + classes, anchors]."""
    return bool(raw.graph.output[0].type.tensor_type.shape.dim[2].dim_value == 6)


def add_nms(raw: onnx.ModelProto) -> onnx.ModelProto:
    """Append one NMS for the whole batch.

    New inputs `score_threshold` and `iou_threshold` (FP32 [1]); outputs named as TensorRT's EfficientNMS names
    them: `num_dets`, `det_boxes` (x1 y1 x2 y2 in input pixels), `det_scores`, `det_classes`.
    """
    model = onnx.ModelProto()
    model.CopyFrom(raw)
    tail = _end_to_end_tail() if is_end_to_end(raw) else _nms_tail()
    graph = model.graph
    graph.node.extend(tail.nodes)
    graph.initializer.extend(tail.constants)
    for name in ("score_threshold", "iou_threshold"):
        graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]))
    del graph.output[:]
    graph.output.extend(
        [
            helper.make_tensor_value_info("num_dets", TensorProto.INT32, ["batch", 1]),
            helper.make_tensor_value_info("det_boxes", TensorProto.FLOAT, ["batch", MAX_DETECTIONS, 4]),
            helper.make_tensor_value_info("det_scores", TensorProto.FLOAT, ["batch", MAX_DETECTIONS]),
            helper.make_tensor_value_info("det_classes", TensorProto.INT32, ["batch", MAX_DETECTIONS]),
        ]
    )
    onnx.checker.check_model(model)
    return model


def accept_uint8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take `images` as UINT8 [batch,H,W,3], as letterboxing leaves them: a quarter of the bytes to pass on."""
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


class _Tail:
    """Nodes and constants that follow `output0`, collected under names of their own."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, value: npt.NDArray[Any], name: str) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def ints(self, name: str, *values: int) -> str:
        return self.constant(np.array(values, np.int64), name)


def _nms_tail() -> _Tail:
    tail = _Tail()
    node, ints = tail.node, tail.ints
    by_anchor = node("Transpose", ["output0"], "by_anchor", perm=[0, 2, 1])
    last, zero, one, two, four, end = (
        ints("axis_last", 2), ints("at_0", 0), ints("at_1", 1), ints("at_2", 2), ints("at_4", 4), ints("at_end", 2**31)
    )  # fmt: skip
    centre = node("Slice", [by_anchor, zero, two, last], "centre")
    size = node("Slice", [by_anchor, two, four, last], "size")
    scores = node("Slice", [by_anchor, four, end, last], "class_scores")
    half = node("Mul", [size, tail.constant(np.array(0.5, np.float32), "half")], "half_size")
    boxes = node("Concat", [node("Sub", [centre, half], "top_left"), node("Add", [centre, half], "bottom_right")],
                 "boxes", axis=2)  # fmt: skip
    best = node("ReduceMax", [scores], "best_score", axes=[2], keepdims=1)
    label = node("ArgMax", [scores], "best_class", axis=2, keepdims=1)
    label_f = node("Cast", [label], "best_class_f", to=TensorProto.FLOAT)
    offset = node("Mul", [label_f, tail.constant(np.array(CLASS_OFFSET_PX, np.float32), "class_offset")], "box_offset")
    apart = node("Add", [boxes, offset], "boxes_apart")
    per_class = node("Transpose", [best], "nms_scores", perm=[0, 2, 1])
    picked = node("NonMaxSuppression",
                  [apart, per_class, ints("max_detections", MAX_DETECTIONS), "iou_threshold", "score_threshold"],
                  "picked")  # fmt: skip
    image = node("Gather", [picked, tail.constant(np.array(0), "column_image")], "picked_image", axis=1)
    anchor = node("Gather", [picked, tail.constant(np.array(2), "column_anchor")], "picked_anchor", axis=1)
    where = node("Concat", [node("Unsqueeze", [image, one], "image_column"),
                            node("Unsqueeze", [anchor, one], "anchor_column")], "where", axis=1)  # fmt: skip
    rows = node("Concat", [boxes, best, label_f], "rows", axis=2)
    found = node("GatherND", [rows, where], "found_rows")
    _pad_per_image(tail, found, image)
    return tail


def _pad_per_image(tail: _Tail, found: str, image: str) -> None:
    """Scatter the rows, which come image by image and best first, into [batch, MAX_DETECTIONS, 6]."""
    node, ints = tail.node, tail.ints
    batch = node("Shape", ["output0"], "batch_size", start=0, end=1)
    scalar_zero = tail.constant(np.array(0), "scalar_0")
    scalar_one = tail.constant(np.array(1), "scalar_1")
    images = node("Range", [scalar_zero, node("Squeeze", [batch], "batch_scalar"), scalar_one], "image_range")
    mine = node("Equal", [node("Unsqueeze", [images, "at_1"], "image_rows"), image], "row_of_image")
    counts = node("ReduceSum", [node("Cast", [mine], "row_of_image_i", to=TensorProto.INT64), "at_1"],
                  "counts", keepdims=0)  # fmt: skip
    starts = node("CumSum", [counts, scalar_zero], "starts", exclusive=1)
    total = node("Squeeze", [node("Shape", [image], "total_shape")], "total")
    order = node("Range", [scalar_zero, total, scalar_one], "row_range")
    rank = node("Sub", [order, node("Gather", [starts, image], "row_start", axis=0)], "rank")
    target = node("Concat", ["image_column", node("Unsqueeze", [rank, "at_1"], "rank_column")], "target", axis=1)
    shape = node("Concat", [batch, ints("row_shape", MAX_DETECTIONS, 6)], "padded_shape", axis=0)
    empty = node("ConstantOfShape", [shape], "empty", value=helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]))
    padded = node("ScatterND", [empty, target, found], "padded")
    count_column = node("Unsqueeze", [counts, "at_1"], "count_column")
    node("Cast", [count_column], "num_dets", to=TensorProto.INT32)
    _split_rows(tail, padded)


def _split_rows(tail: _Tail, rows: str) -> None:
    node = tail.node
    node("Slice", [rows, "at_0", "at_4", "axis_last"], "det_boxes")
    score = tail.constant(np.array(4), "column_score")
    label = tail.constant(np.array(5), "column_class")
    node("Gather", [rows, score], "det_scores", axis=2)
    node("Cast", [node("Gather", [rows, label], "det_classes_f", axis=2)], "det_classes", to=TensorProto.INT32)


def _end_to_end_tail() -> _Tail:
    """The head's rows are final and sorted: count those above the threshold; nothing is suppressed."""
    tail = _Tail()
    node = tail.node
    for name, value in (("axis_last", 2), ("at_0", 0), ("at_1", 1), ("at_4", 4)):
        tail.ints(name, value)
    _split_rows(tail, "output0")
    above = node("Greater", ["det_scores", "score_threshold"], "above")
    node("Cast", [node("ReduceSum", [node("Cast", [above], "above_i", to=TensorProto.INT64), "at_1"], "above_count",
                       keepdims=1)], "num_dets", to=TensorProto.INT32)  # fmt: skip
    # Every graph takes the same inputs; this head has no use for an IoU.
    node("Identity", ["iou_threshold"], "unused_iou_threshold")
    return tail

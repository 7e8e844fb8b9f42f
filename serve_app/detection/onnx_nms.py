"""Adds one NMS for the whole batch to a graph: ONNX's NonMaxSuppression, or TensorRT's plugin."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from serve_app.detection.onnx_graph import is_end_to_end
from serve_app.types import Thresholds

MAX_DETECTIONS = 300
# Like ultralytics, one NMS keeps classes apart by moving each class's boxes to a region of its own.
CLASS_OFFSET_PX = 7680.0
# The lowest score that an engine with fixed thresholds returns; each additional candidate costs time.
LEAST_CONFIDENCE = 0.05
NO_CONFIDENCE = 0.001  # with 0 every class of every anchor would be a candidate
PLUGIN = "EfficientNMS_TRT"


def add_nms(raw: onnx.ModelProto, fixed: Thresholds | None = None) -> onnx.ModelProto:
    """Append one NMS for the whole batch.

    Outputs are named as TensorRT's EfficientNMS names them: `num_dets`, `det_boxes` (x1 y1 x2 y2 in input pixels),
    `det_scores`, `det_classes`; rows are sorted by score. Thresholds are the inputs `score_threshold` and
    `iou_threshold` (FP32 [1]). If they are `fixed`, the rows that `num_dets` counts are followed by rows with scores
    down to LEAST_CONFIDENCE, for callers with a lower threshold.
    """
    model = onnx.ModelProto()
    model.CopyFrom(raw)
    graph, tail = model.graph, _Tail()
    if fixed:
        tail.floats("score_threshold", fixed.confidence)
        tail.floats("iou_threshold", fixed.iou)
        tail.floats("kept_threshold", fixed_thresholds(fixed)["least_confidence"])
    else:
        tail.node("Identity", ["score_threshold"], "kept_threshold")
        for name in ("score_threshold", "iou_threshold"):
            graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]))
    if is_end_to_end(raw):
        _pass_rows(tail)
    else:
        _suppress(tail, anchors=raw.graph.output[0].type.tensor_type.shape.dim[2].dim_value)
    _count(tail)
    graph.node.extend(tail.nodes)
    graph.initializer.extend(tail.constants)
    graph.value_info.append(raw.graph.output[0])
    _name_outputs(graph)
    if fixed:
        _remove_unused(graph)
    onnx.checker.check_model(model)
    return model


def fixed_thresholds(fixed: Thresholds) -> dict[str, float]:
    """The fields of the model card of an engine with `fixed` thresholds."""
    least = max(min(LEAST_CONFIDENCE, fixed.confidence), NO_CONFIDENCE)
    return {"fixed_iou": fixed.iou, "least_confidence": least}


def with_plugin(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace the NMS of a graph with fixed thresholds by TensorRT's plugin, which is faster."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    if not any(node.op_type == "NonMaxSuppression" for node in graph.node):
        return result
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    replaced = {"num_dets", "det_boxes", "det_scores", "det_classes", "above", "above_i"}
    kept = [node for node in graph.node if not replaced & set(node.output)]
    tail = _Tail()
    # The plugin would return an anchor once for each of its classes, ultralytics only for the best one. The best class
    # is compared by its number, because scores in FP16 may tie.
    numbers = tail.ints("class_numbers", *range(_classes_of(graph)))
    best = tail.node("Cast", [tail.node("Equal", ["best_class", numbers], "is_best")], "is_best_f", to=1)
    scores = tail.node("Mul", ["class_scores", best], "best_class_scores")
    tail.nodes.append(
        helper.make_node(
            PLUGIN, ["boxes", scores], ["num_kept", "det_boxes", "det_scores", "det_classes"], name=PLUGIN,
            domain="TRT", plugin_version="1", background_class=-1, max_output_boxes=MAX_DETECTIONS, box_coding=0,
            score_activation=0, class_agnostic=0, score_threshold=float(constants["kept_threshold"][0]),
            iou_threshold=float(constants["iou_threshold"][0]),
        )
    )  # fmt: skip
    _count(tail)
    del graph.node[:]
    graph.node.extend([*kept, *tail.nodes])
    graph.initializer.extend(one for one in tail.constants if one.name not in constants)
    _remove_unused(graph)
    result.opset_import.append(helper.make_opsetid("TRT", 1))
    return result


def _classes_of(graph: onnx.GraphProto) -> int:
    (head,) = (one for one in graph.value_info if one.name == "output0")
    return int(head.type.tensor_type.shape.dim[1].dim_value) - 4  # without the box


def _name_outputs(graph: onnx.GraphProto) -> None:
    del graph.output[:]
    graph.output.extend(
        [
            helper.make_tensor_value_info("num_dets", TensorProto.INT32, ["batch", 1]),
            helper.make_tensor_value_info("det_boxes", TensorProto.FLOAT, ["batch", MAX_DETECTIONS, 4]),
            helper.make_tensor_value_info("det_scores", TensorProto.FLOAT, ["batch", MAX_DETECTIONS]),
            helper.make_tensor_value_info("det_classes", TensorProto.INT32, ["batch", MAX_DETECTIONS]),
        ]
    )


def _remove_unused(graph: onnx.GraphProto) -> None:
    wanted = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):  # topologically sorted: consumers come first in reverse
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    constants = [one for one in graph.initializer if one.name in wanted]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(constants)


class _Tail:
    """The nodes and constants that are appended after `output0`."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, value: npt.NDArray[Any], name: str) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def ints(self, name: str, *values: int) -> str:
        return self.constant(np.array(values, np.int64), name)

    def floats(self, name: str, *values: float) -> str:
        return self.constant(np.array(values, np.float32), name)


def _suppress(tail: _Tail, anchors: int) -> None:
    """Sort what NMS keeps by score: set the other scores to 0, and take the best 300.

    So all shapes but the batch are static, which makes engines faster.
    """
    node, ints = tail.node, tail.ints
    boxes, best, label = _split_head(tail)
    kept = _kept_scores(tail, boxes, best, label)
    count = min(MAX_DETECTIONS, anchors)
    tail.nodes.append(
        helper.make_node("TopK", [kept, ints("rows", count)], ["top_scores", "top_anchors"], name="top", axis=1)
    )
    where = node("Unsqueeze", ["top_anchors", "at_2"], "top_where")
    found = node("Cast", [node("Greater", ["top_scores", tail.floats("nothing", 0.0)], "is_found")], "is_found_f", to=1)
    of_found = node("Unsqueeze", [found, "at_2"], "is_found_row")
    rows = node("GatherND", [boxes, where], "top_boxes", batch_dims=1)
    labels = node("GatherND", [node("Squeeze", [label, "at_2"], "anchor_class"), where], "top_classes", batch_dims=1)
    labels = node("Mul", [node("Cast", [labels], "top_classes_f", to=TensorProto.FLOAT), found], "found_classes")
    for name, value in (
        ("det_boxes", node("Mul", [rows, of_found], "found_boxes")),
        ("det_scores", "top_scores"),
        ("det_classes_f", labels),
    ):
        if count < MAX_DETECTIONS:
            ends = [0, 0, 0, MAX_DETECTIONS - count] if name != "det_boxes" else [0, 0, 0, 0, MAX_DETECTIONS - count, 0]
            node("Pad", [value, ints(f"{name}_ends", *ends)], name)
        else:
            node("Identity", [value], name)
    node("Cast", ["det_classes_f"], "det_classes", to=TensorProto.INT32)


def _split_head(tail: _Tail) -> tuple[str, str, str]:
    """The corners of every anchor's box, its best score, and the class of that score."""
    node, ints = tail.node, tail.ints
    by_anchor = node("Transpose", ["output0"], "by_anchor", perm=[0, 2, 1])
    zero, two, four, end = ints("at_0", 0), ints("at_2", 2), ints("at_4", 4), ints("at_end", 2**31)
    centre = node("Slice", [by_anchor, zero, two, two], "centre")
    size = node("Slice", [by_anchor, two, four, two], "size")
    scores = node("Slice", [by_anchor, four, end, two], "class_scores")
    half = node("Mul", [size, tail.constant(np.array(0.5, np.float32), "half")], "half_size")
    corners = [node("Sub", [centre, half], "top_left"), node("Add", [centre, half], "bottom_right")]
    boxes = node("Concat", corners, "boxes", axis=2)
    best = node("ReduceMax", [scores, two], "best_score", keepdims=1)
    return boxes, best, node("ArgMax", [scores], "best_class", axis=2, keepdims=1)


def _kept_scores(tail: _Tail, boxes: str, best: str, label: str) -> str:
    """The scores [batch, anchors] of the anchors that NMS keeps, and 0 for the others."""
    node, ints = tail.node, tail.ints
    offset = tail.constant(np.array(CLASS_OFFSET_PX, np.float32), "class_offset")
    moved = node("Mul", [node("Cast", [label], "best_class_f", to=TensorProto.FLOAT), offset], "box_offset")
    apart = node("Add", [boxes, moved], "boxes_apart")
    one_class = node("Transpose", [best], "nms_scores", perm=[0, 2, 1])
    limits = [ints("max_detections", MAX_DETECTIONS), "iou_threshold", "kept_threshold"]
    picked = node("NonMaxSuppression", [apart, one_class, *limits], "picked")
    where = node("Gather", [picked, ints("image_and_anchor", 0, 2)], "picked_where", axis=1)
    scores = node("Squeeze", [best, "at_2"], "anchor_score")
    none = node("Mul", [scores, tail.constant(np.array(0, np.float32), "zero")], "no_scores")
    return node("ScatterND", [none, where, node("GatherND", [scores, where], "picked_scores")], "kept_scores")


def _pass_rows(tail: _Tail) -> None:
    """Rename the rows of an end-to-end head, which are final and sorted."""
    node = tail.node
    zero, four, last = tail.ints("at_0", 0), tail.ints("at_4", 4), tail.ints("axis_last", 2)
    node("Slice", ["output0", zero, four, last], "det_boxes")
    node("Gather", ["output0", tail.constant(np.array(4), "column_score")], "det_scores", axis=2)
    label = node("Gather", ["output0", tail.constant(np.array(5), "column_class")], "det_classes_f", axis=2)
    node("Cast", [label], "det_classes", to=TensorProto.INT32)
    # Every graph has the same inputs; this head doesn't use these.
    node("Identity", ["iou_threshold"], "unused_iou_threshold")
    node("Identity", ["kept_threshold"], "unused_kept_threshold")


def _count(tail: _Tail) -> None:
    above = tail.node("Greater", ["det_scores", "score_threshold"], "above")
    counted = tail.node("Cast", [above], "above_i", to=TensorProto.INT32)
    tail.node("ReduceSum", [counted, tail.ints("axis_rows", 1)], "num_dets", keepdims=1)

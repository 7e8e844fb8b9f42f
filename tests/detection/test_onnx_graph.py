"""The graph that every engine is built from."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from serve_app.detection.onnx_graph import accept_uint8


def test_letterboxed_bytes_are_scaled_and_transposed_in_the_graph():
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 32, 32])
    output = helper.make_tensor_value_info("output0", TensorProto.FLOAT, ["batch", 3, 32, 32])
    graph = helper.make_graph([helper.make_node("Identity", ["images"], ["output0"])], "raw", [images], [output])
    model = accept_uint8(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9))
    pictures = np.random.default_rng(2).integers(0, 256, (2, 32, 32, 3), np.uint8)
    (answer,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"images": pictures})
    assert np.allclose(answer, pictures.transpose(0, 3, 1, 2) / 255, atol=1e-7)
    onnx.checker.check_model(model)

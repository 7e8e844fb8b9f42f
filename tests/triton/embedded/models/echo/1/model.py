"""Gives back each input that came, under the name of its output."""

import triton_python_backend_utils as pb_utils


def renamed(tensor):
    name = tensor.name().replace("IN_", "OUT_")
    if name == "OUT_BF16":  # NumPy has no such type
        return pb_utils.Tensor.from_dlpack(name, tensor)
    return pb_utils.Tensor(name, tensor.as_numpy())


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([renamed(t) for t in r.inputs()]) for r in requests]

"""Adds up the values of each sequence, and tells which sequence it thinks it is in."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        return [self.add(request) for request in requests]

    def add(self, request):
        key, flags = request.correlation_id(), request.flags()
        value = pb_utils.get_input_tensor_by_name(request, "VALUE").as_numpy()
        if flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START:
            self.sums[key] = np.zeros_like(value)
        self.sums[key] = self.sums[key] + value
        total = self.sums[key]
        if flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END:
            del self.sums[key]
        name = np.array([f"{type(key).__name__}:{key}".encode()] * len(value), dtype=object)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("SUM", total), pb_utils.Tensor("KEY", name.reshape(value.shape))]
        )

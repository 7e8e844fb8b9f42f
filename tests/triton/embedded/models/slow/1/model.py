"""Takes as long as it is told, and answers with a running number: the order in which requests ran."""

import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.done = 0

    def execute(self, requests):
        return [self.work(request) for request in requests]

    def work(self, request):
        time.sleep(float(pb_utils.get_input_tensor_by_name(request, "SECONDS").as_numpy().ravel()[0]))
        self.done += 1
        return pb_utils.InferenceResponse([pb_utils.Tensor("ORDER", np.array([[self.done]], np.int32))])

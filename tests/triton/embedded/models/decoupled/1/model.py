"""Counts from 0 to COUNT - 1 in a response each, with a pause between them, until it is cancelled."""

import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            self.count(request)

    def count(self, request):
        sender = request.get_response_sender()
        count, pause_s = pb_utils.get_input_tensor_by_name(request, "COUNT").as_numpy()
        for number in range(int(count)):
            if sender.is_cancelled():
                error = pb_utils.TritonError(f"cancelled after {number}", pb_utils.TritonError.CANCELLED)
                sender.send(pb_utils.InferenceResponse([], error))
                break
            output = pb_utils.Tensor("NUMBER", np.array([number], np.float32))
            sender.send(pb_utils.InferenceResponse([output]))
            time.sleep(float(pause_s))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

"""Refuses every request in the way that the request says."""

import os

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.refuse(request) for request in requests]

    def refuse(self, request):
        (how,) = pb_utils.get_input_tensor_by_name(request, "HOW").as_numpy()
        if how == b"raise":
            raise ValueError("the model raised")
        if how == b"die":
            os._exit(3)
        return pb_utils.InferenceResponse(
            [], pb_utils.TritonError("no: " + how.decode(), pb_utils.TritonError.UNAVAILABLE)
        )

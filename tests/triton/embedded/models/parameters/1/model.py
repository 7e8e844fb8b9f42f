"""Answers what it sees of the request, as JSON."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.describe(request) for request in requests]

    def describe(self, request):
        given = request.parameters()
        seen = {
            "request_id": request.request_id(),
            "parameters": json.loads(given) if isinstance(given, str) else given,
            "inputs": sorted(tensor.name() for tensor in request.inputs()),
            "outputs": sorted(request.requested_output_names()),
        }
        output = pb_utils.Tensor("SEEN", np.array([json.dumps(seen).encode()], dtype=object))
        return pb_utils.InferenceResponse([output])

"""Sleeps as long as a request says."""

import time
from typing import Any

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._sleep(pb_utils.get_input_tensor_by_name(request, "SECONDS").as_numpy()) for request in requests]

    def _sleep(self, seconds: Any) -> Any:
        time.sleep(float(seconds.ravel()[0]))
        return pb_utils.InferenceResponse([pb_utils.Tensor("SLEPT", seconds)])

"""Preprocessing for track D: decodes and letterboxes pictures."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import triton_python_backend_utils as pb_utils

from serve_app.detection.preprocess import decode, letterbox
from serve_app.errors import ServeAppError
from serve_app.types import MAX_PIXELS, MAX_PIXELS_VARIABLE


class TritonPythonModel:
    """`encoded` → `images` (letterboxed RGB) and `original_size` (width, height of the upright picture)."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        parameters = config.get("parameters", {})
        threads = int(parameters.get("threads", {}).get("string_value", "0")) or len(os.sched_getaffinity(0))
        images = next(output for output in config["output"] if output["name"] == "images")
        self.side = int(images["dims"][0])
        given = os.environ.get(MAX_PIXELS_VARIABLE, str(MAX_PIXELS))
        self.max_pixels = int(parameters.get("max_pixels", {}).get("string_value", given))
        self.pool = ThreadPoolExecutor(threads)
        cv2.setNumThreads(1)  # the pool has one thread per core

    def execute(self, requests: list[Any]) -> list[Any]:
        """A broken picture fails only its own request."""
        return list(self.pool.map(self._answer, requests))

    def _answer(self, request: Any) -> Any:
        encoded = pb_utils.get_input_tensor_by_name(request, "encoded").as_numpy()
        try:
            pictures = [letterbox(decode(memoryview(row), self.max_pixels), self.side) for row in encoded]
        except ServeAppError as problem:
            error = pb_utils.TritonError(str(problem), pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=error)
        squares = [square for square, _ in pictures]
        images = squares[0][None] if len(squares) == 1 else np.stack(squares)
        sizes = np.array([(box.width, box.height) for _, box in pictures], np.int32)
        tensors = [pb_utils.Tensor("images", images), pb_utils.Tensor("original_size", sizes)]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def finalize(self) -> None:
        self.pool.shutdown()

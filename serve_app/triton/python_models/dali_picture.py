"""Preprocessing for track D with DALI: decodes and letterboxes pictures on the CPU or a GPU."""

import json
import os
from itertools import accumulate, chain
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils
from nvidia.dali.pipeline import Pipeline

from serve_app.detection.preprocess import is_for_dali
from serve_app.triton.python_models import picture
from serve_app.triton.python_models.dali_pipeline import build_pipeline


class TritonPythonModel(picture.TritonPythonModel):
    """`encoded` → `images` (letterboxed RGB) and `original_size` (width, height of the upright picture)."""

    def initialize(self, args: dict[str, str]) -> None:
        super().initialize(args)
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        device = parameters.get("device", "cuda")
        if device not in ("cpu", "cuda"):
            raise ValueError(f"parameter device must be cpu or cuda, got {device!r}")
        self.device: Literal["cpu", "cuda"] = "cpu" if device == "cpu" else "cuda"
        self.device_id = None if self.device == "cpu" else int(args["model_instance_device_id"])
        self.threads = int(parameters.get("threads", "0")) or len(os.sched_getaffinity(0))
        self.max_batch = int(config["max_batch_size"])
        self.pipeline: Pipeline | None = self._build()

    def _build(self) -> Pipeline:
        pipeline = build_pipeline(self.side, self.max_batch, self.threads, self.device, self.device_id)
        pipeline.build()
        return pipeline

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run DALI on all pictures that it can decode; the others, and all if DALI fails, are decoded in Python."""
        pictures = [_pictures(request) for request in requests]
        valid = [
            number
            for number, group in enumerate(pictures)
            if all(is_for_dali(encoded, self.max_pixels) for encoded in group)
        ]
        answers = dict(zip(valid, self._run_dali([pictures[number] for number in valid]), strict=False))
        rest = [number for number in range(len(requests)) if number not in answers]
        answers.update(zip(rest, super().execute([requests[number] for number in rest]), strict=True))
        return [answers[number] for number in range(len(requests))]

    def _run_dali(self, groups: list[list[bytes]]) -> list[Any]:
        """A response per request, or an empty list if DALI fails: one broken picture fails its whole batch."""
        if not groups:
            return []
        try:
            images, sizes = self._run(list(chain(*groups)))
        except Exception as problem:  # a GPU can fail in other ways than a picture
            self.pipeline = None  # DALI: "Current pipeline object is no longer valid"
            reason = str(problem).partition("encountered:")[2] or str(problem)
            pb_utils.Logger.log_warn(f"DALI refused a batch, which is decoded without DALI: {' '.join(reason.split())}")
            return []
        stops = accumulate(len(group) for group in groups)
        spans = [slice(stop - len(group), stop) for group, stop in zip(groups, stops, strict=True)]
        return [self._response(images[span], sizes[span]) for span in spans]

    def _run(self, pictures: list[bytes]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
        """The results are in DALI's memory, valid until the next run; Triton copies the responses before that."""
        self.pipeline = self.pipeline or self._build()
        # at most max_batch_size pictures: Triton refuses larger requests
        images, sizes = self.pipeline.run(encoded=[np.frombuffer(encoded, np.uint8) for encoded in pictures])
        # to the CPU, because the engine is another process and reads pictures from shared memory
        return images.as_cpu().as_array(), sizes.as_array()

    def _response(self, images: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int32]) -> Any:
        tensors = [pb_utils.Tensor("images", images), pb_utils.Tensor("original_size", sizes)]
        return pb_utils.InferenceResponse(output_tensors=tensors)

    def finalize(self) -> None:
        self.pipeline = None
        super().finalize()


def _pictures(request: Any) -> list[bytes]:
    return [row.tobytes() for row in pb_utils.get_input_tensor_by_name(request, "encoded").as_numpy()]

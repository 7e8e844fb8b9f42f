"""The engine for GPUs where Triton has only its Python backend: runs the pictures of all requests as one batch."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils

Array = npt.NDArray[Any]
Thresholds = tuple[float, float]
DEFAULTS = {"score_threshold": 0.25, "iou_threshold": 0.7}


class Runner(Protocol):
    """A library that has loaded the folder's engine; `thresholds` are score and IoU."""

    def run(self, images: Array, thresholds: Thresholds) -> Sequence[Array]: ...


class TritonPythonModel:
    """`images` → the config's outputs; requests with the same thresholds (request parameters) are one batch."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        parameters = {name: value["string_value"] for name, value in config.get("parameters", {}).items()}
        self.outputs = [output["name"] for output in config["output"]]
        self.max_batch = max(1, int(config["max_batch_size"]))
        self.runner = load_runner(parameters["engine"], folder, parameters["device"], self.outputs)

    def execute(self, requests: list[Any]) -> list[Any]:
        """A failed batch fails only its own requests."""
        responses: list[Any] = [None] * len(requests)
        images = [pb_utils.get_input_tensor_by_name(request, "images").as_numpy() for request in requests]
        for thresholds, numbers in self._batches(requests, images):
            whole = images[numbers[0]] if len(numbers) == 1 else np.concatenate([images[one] for one in numbers])
            try:
                answers = self.runner.run(whole, thresholds)
            except Exception as problem:  # any error belongs to these requests
                error = pb_utils.TritonError(f"the engine failed: {problem}")
                for one in numbers:
                    responses[one] = pb_utils.InferenceResponse(error=error)
                continue
            start = 0
            for one in numbers:
                responses[one] = self._respond(answers, start, start := start + len(images[one]))
        return responses

    def _batches(self, requests: list[Any], images: list[Array]) -> Iterator[tuple[Thresholds, list[int]]]:
        """Batches of requests with the same thresholds, of at most max_batch_size pictures."""
        groups: dict[Thresholds, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(thresholds_of(request), []).append(number)
        for thresholds, numbers in groups.items():
            batch: list[int] = []
            for number in numbers:
                if batch and sum(len(images[one]) for one in batch) + len(images[number]) > self.max_batch:
                    yield thresholds, batch
                    batch = []
                batch.append(number)
            yield thresholds, batch

    def _respond(self, answers: Sequence[Array], start: int, end: int) -> Any:
        tensors = [
            pb_utils.Tensor(name, np.ascontiguousarray(answer[start:end]))
            for name, answer in zip(self.outputs, answers, strict=True)
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)


def thresholds_of(request: Any) -> Thresholds:
    given = json.loads(request.parameters() or "{}")
    score, iou = (float(given.get(name, default)) for name, default in DEFAULTS.items())
    return score, iou


def load_runner(engine: str, folder: Path, device: str, outputs: list[str]) -> Runner:
    if engine == "onnxruntime":
        from serve_app.triton.python_models.onnx_runner import OnnxRunner

        return OnnxRunner(folder, device, outputs)
    from serve_app.triton.python_models.torch_runner import TorchRunner

    return TorchRunner(folder, device, outputs)

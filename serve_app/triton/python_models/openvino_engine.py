"""The CPU engine: runs a folder's graph with OpenVINO, one picture per stream."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
import triton_python_backend_utils as pb_utils

from serve_app.triton.python_models.graph import compile_graph

Row = dict[str, npt.NDArray[Any]]
THRESHOLDS = {"score_threshold": 0.25, "iou_threshold": 0.7}


class TritonPythonModel:
    """`images` → the config's outputs; thresholds are request parameters."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        self.outputs = [output["name"] for output in config["output"]]
        compiled = compile_graph(
            folder, int(_parameter(config, "threads", "0")), int(_parameter(config, "streams", "0"))
        )
        self.thresholds = {name: value for name, value in THRESHOLDS.items() if name in _input_names(compiled)}
        self.streams = ov.AsyncInferQueue(compiled, compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self.streams.set_callback(self._collect)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Give each picture of each request to the next free stream; an error fails only its own request."""
        answers: list[list[Row | Exception | None]] = []
        shared: list[Row] = []  # keeps alive what streams read without owning it
        for request in requests:
            images = pb_utils.get_input_tensor_by_name(request, "images").as_numpy()
            rows: list[Row | Exception | None] = [None] * len(images)
            answers.append(rows)
            try:
                thresholds = self._thresholds_of(request)
                shared.append(thresholds | {"images": images})
                for position in range(len(images)):
                    inputs = {"images": images[position : position + 1], **thresholds}
                    self.streams.start_async(inputs, (rows, position), share_inputs=True)
            except Exception as problem:  # any error belongs to this request
                rows[:] = [problem]
        self.streams.wait_all()
        return [self._respond(rows) for rows in answers]

    def _thresholds_of(self, request: Any) -> Row:
        if not self.thresholds:
            return {}
        given = json.loads(request.parameters() or "{}")
        return {
            name: np.array([float(given.get(name, default))], np.float32) for name, default in self.thresholds.items()
        }

    def _collect(self, finished: ov.InferRequest, place: tuple[list[Any], int]) -> None:
        rows, position = place
        try:
            rows[position] = {name: finished.get_tensor(name).data.copy() for name in self.outputs}
        except Exception as problem:  # OpenVINO's callback must not raise
            rows[position] = problem

    def _respond(self, rows: list[Row | Exception | None]) -> Any:
        problems = [row for row in rows if not isinstance(row, dict)]
        if problems:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"the engine failed: {problems[0]}"))
        done: list[Row] = [row for row in rows if isinstance(row, dict)]
        tensors = []
        for name in self.outputs:
            parts = [row[name] for row in done]
            tensors.append(pb_utils.Tensor(name, parts[0] if len(parts) == 1 else np.concatenate(parts)))
        return pb_utils.InferenceResponse(output_tensors=tensors)


def _input_names(compiled: ov.CompiledModel) -> set[str]:
    return {name for port in compiled.inputs for name in port.get_names()}


def _parameter(config: dict[str, Any], name: str, default: str) -> str:
    return str(config.get("parameters", {}).get(name, {}).get("string_value", default))

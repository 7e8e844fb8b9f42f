"""Runs a folder's graph with ONNX Runtime on a GPU or the CPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
OPTIONS = {"cuda": {"use_tf32": "0"}, "cpu": {}}  # FP32 means FP32


class OnnxRunner:
    """Raises where the GPU can't be used; ONNX Runtime would silently use the CPU."""

    def __init__(self, folder: Path, device: str, outputs: Sequence[str]) -> None:
        graph = folder / "model.onnx"
        if not graph.is_file():
            raise FileNotFoundError(f"{folder} has no {graph.name}: build it with `make models`")
        provider = PROVIDERS[device]
        if provider not in onnxruntime.get_available_providers():
            raise RuntimeError(f"this ONNX Runtime has no {provider}: install onnxruntime-gpu")
        self._session = onnxruntime.InferenceSession(graph, providers=[(provider, OPTIONS[device])])
        if self._session.get_providers()[0] != provider:
            raise RuntimeError(f"{provider} can't be loaded: CUDA libraries or a GPU are missing")
        self._outputs = list(outputs)
        self._asks = {one.name for one in self._session.get_inputs()}

    def run(self, images: npt.NDArray[Any], thresholds: tuple[float, float]) -> Sequence[npt.NDArray[Any]]:
        given = zip(("score_threshold", "iou_threshold"), thresholds, strict=True)
        asked = {name: np.array([value], np.float32) for name, value in given if name in self._asks}
        return self._session.run(self._outputs, {"images": images} | asked)  # type: ignore[no-any-return]

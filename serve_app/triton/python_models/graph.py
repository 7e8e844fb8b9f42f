"""A folder's graph, compiled for this processor by OpenVINO."""

import json
import os
from pathlib import Path

import openvino as ov

GRAPH_FILES = ("model.xml", "model.onnx")


def compile_graph(folder: Path, threads: int, streams: int) -> ov.CompiledModel:
    """For pictures one by one; 0 threads are one for each core, and 0 streams one for each thread."""
    graph = next((folder / name for name in GRAPH_FILES if (folder / name).is_file()), None)
    if graph is None:
        raise FileNotFoundError(f"no engine in {folder}: `make models` builds {GRAPH_FILES[0]}")
    threads = threads or len(os.sched_getaffinity(0))
    core = ov.Core()
    model = core.read_model(graph)
    _fix_batch(model)
    settings = {
        "INFERENCE_PRECISION_HINT": _precision(folder),  # else OpenVINO takes bf16 where the processor has it
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams or threads,
    }
    return core.compile_model(model, "CPU", settings)


def _fix_batch(model: ov.Model) -> None:
    """Pictures come one by one: without free sizes OpenVINO plans memory once."""
    images = model.input("images")
    shape = images.partial_shape
    shape[0] = 1
    model.reshape({"images": shape})


def _precision(folder: Path) -> str:
    card = folder / "model.json"
    precision = json.loads(card.read_text())["precision"] if card.is_file() else "f32"
    return "bf16" if precision == "bf16" else "f32"

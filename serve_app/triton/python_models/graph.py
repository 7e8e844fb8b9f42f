"""Compiles a folder's graph for the CPU with OpenVINO."""

import json
import os
from pathlib import Path

import openvino as ov

GRAPH_FILES = ("model.xml", "model.onnx")


def compile_graph(folder: Path, threads: int, streams: int) -> ov.CompiledModel:
    """Compile for batches of one picture; 0 threads mean one per core, 0 streams one per thread."""
    graph = next((folder / name for name in GRAPH_FILES if (folder / name).is_file()), None)
    if graph is None:
        raise FileNotFoundError(f"{folder} has no {GRAPH_FILES[0]}: build it with `make models`")
    threads = threads or len(os.sched_getaffinity(0))
    core = ov.Core()
    model = core.read_model(graph)
    _fix_batch(model)
    settings = {
        "INFERENCE_PRECISION_HINT": _precision(folder),  # OpenVINO's default is bf16 where the CPU supports it
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams or threads,
    }
    return core.compile_model(model, "CPU", settings)


def _fix_batch(model: ov.Model) -> None:
    """Fix the batch to 1: with static shapes OpenVINO plans memory once."""
    images = model.input("images")
    shape = images.partial_shape
    shape[0] = 1
    model.reshape({"images": shape})


def _precision(folder: Path) -> str:
    card = folder / "model.json"
    precision = json.loads(card.read_text())["precision"] if card.is_file() else "f32"
    return "bf16" if precision == "bf16" else "f32"

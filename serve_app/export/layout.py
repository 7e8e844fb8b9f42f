"""What a complete CPU repository holds: every model's folder with its config, its model.py and its kind of engine."""

from collections.abc import Iterator
from dataclasses import dataclass

from serve_app.export.configs import (
    END2END,
    PREPROCESS,
    RAW,
    TIER,
    TIERS,
    engine_config,
    pipeline_config,
    preprocess_config,
    tier_engine_name,
)  # fmt: skip

ENGINE_PY = '''"""Runs the engine beside this file with OpenVINO."""

from serve_app.triton.python_models.openvino_engine import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''
PICTURE_PY = '''"""Decodes and letterboxes pictures."""

from serve_app.triton.python_models.picture import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """One folder of the repository; `graph` says which engine it needs, None that it needs none."""

    name: str
    config: str
    model_py: str | None
    graph: str | None
    size: str


def repository_layout(sizes: list[str], side: int) -> Iterator[ModelFolder]:
    """All folders, the first size also as `yolo`."""
    raw = engine_config("yolo", "The raw head, for clients that do their own NMS.", RAW, side)
    yield ModelFolder("yolo", raw, ENGINE_PY, RAW, sizes[0])
    yield ModelFolder(PREPROCESS, preprocess_config(side), PICTURE_PY, None, sizes[0])
    for size in sizes:
        yield from _size_layout(size, side)


def _size_layout(size: str, side: int) -> Iterator[ModelFolder]:
    name = f"yolo_{size}"
    config = engine_config(name, "Track B: the raw head; NMS is done outside.", RAW, side)
    yield ModelFolder(name, config, ENGINE_PY, RAW, size)
    name = f"yolo_{size}_end2end"
    yield ModelFolder(name, engine_config(name, "Track C: NMS inside.", END2END, side), ENGINE_PY, END2END, size)
    for tier in TIERS:
        name = tier_engine_name(size, tier)
        config = engine_config(name, f"The engine of track D, {tier.name}: letterboxed bytes in.", TIER, side, tier)
        yield ModelFolder(name, config, ENGINE_PY, TIER, size)
        yield ModelFolder(f"yolo_{size}{tier.suffix}", pipeline_config(size, tier), None, None, size)

"""The folders of a complete repository: each model's configs, its model.py, and the graph that its engine needs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from serve_app.tools.export.backends import ALTERNATIVES, OPENVINO, TENSORRT, Backend
from serve_app.tools.export.configs import (
    END2END,
    PREPROCESS,
    RAW,
    TIER,
    TIERS,
    Tier,
    engine_config,
    pipeline_config,
    preprocess_config,
    tier_engine_name,
)

MODEL_PY = '''"""{purpose}"""

from serve_app.triton.python_models.{module} import TritonPythonModel

__all__ = ["TritonPythonModel"]
'''
ENGINE_PY = MODEL_PY.format(purpose="Runs the engine beside this file with OpenVINO.", module="openvino_engine")
PICTURE_PY = MODEL_PY.format(purpose="Decodes and letterboxes pictures.", module="picture")
BATCH_ENGINE_PY = MODEL_PY.format(
    purpose="Runs the engine beside this file with ONNX Runtime or PyTorch, where the config says so.",
    module="batch_engine",
)
READER_PY = MODEL_PY.format(purpose="Decodes and letterboxes pictures with DALI.", module="dali_picture")


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """One folder of the repository; `graph` is None where the model runs no engine."""

    name: str
    config: str
    model_py: str | None
    graph: str | None
    size: str
    tier: Tier | None = None
    alternatives: Mapping[str, str] = field(default_factory=dict)  # configs for other backends, by name


@dataclass(frozen=True, slots=True)
class RepositoryKind:
    """A repository for CPUs or for GPUs; `default` is what config.pbtxt says."""

    default: Backend
    alternatives: tuple[Backend, ...]
    engine_py: str
    reader_py: str


ON_CPU = RepositoryKind(OPENVINO, (), ENGINE_PY, PICTURE_PY)
ON_GPU = RepositoryKind(TENSORRT, ALTERNATIVES, BATCH_ENGINE_PY, READER_PY)


def kind_of(engine: str) -> RepositoryKind:
    return ON_CPU if engine == "openvino" else ON_GPU


def repository_layout(sizes: list[str], side: int, kind: RepositoryKind = ON_CPU) -> Iterator[ModelFolder]:
    """Every folder; the raw head of the first size is also served as `yolo`."""
    yield _engine(kind, "yolo", "The raw head, for clients that do their own NMS.", RAW, sizes[0], side)
    readers = {backend.name: preprocess_config(backend, side) for backend in kind.alternatives}
    yield ModelFolder(
        PREPROCESS, preprocess_config(kind.default, side), kind.reader_py, None, sizes[0], alternatives=readers
    )
    for size in sizes:
        yield from _size_layout(kind, size, side)


def _size_layout(kind: RepositoryKind, size: str, side: int) -> Iterator[ModelFolder]:
    name = f"yolo_{size}"
    yield _engine(kind, name, "Track B: the raw head; NMS is done outside.", RAW, size, side)
    yield _engine(kind, f"{name}_end2end", "Track C: NMS inside.", END2END, size, side)
    for tier in TIERS:
        purpose = f"The engine of track D, {tier.name}: letterboxed bytes in."
        yield _engine(kind, tier_engine_name(size, tier), purpose, TIER, size, side, tier)
        yield ModelFolder(f"{name}{tier.suffix}", pipeline_config(size, tier), None, None, size)


def _engine(
    kind: RepositoryKind, name: str, purpose: str, graph: str, size: str, side: int, tier: Tier | None = None
) -> ModelFolder:
    def config(backend: Backend) -> str:
        return engine_config(backend, name, purpose, graph, side, tier)

    others = {backend.name: config(backend) for backend in kind.alternatives}
    return ModelFolder(name, config(kind.default), kind.engine_py, graph, size, tier, others)

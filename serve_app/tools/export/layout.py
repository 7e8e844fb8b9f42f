"""What a complete repository holds: every model's folder with its configs, its model.py and its kind of engine."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from serve_app.tools.export.backings import ALTERNATIVES, OPENVINO_BACKING, TENSORRT, Backing
from serve_app.tools.export.configs import END2END, RAW, TIER, engine_config, pipeline_config, preprocess_config
from serve_app.tools.export.tiers import PREPROCESS, TIERS, Tier, tier_engine_name

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
    """One folder of the repository; `graph` says which engine it needs, None that it needs none."""

    name: str
    config: str
    model_py: str | None
    graph: str | None
    size: str
    tier: Tier | None = None
    alternatives: Mapping[str, str] = field(default_factory=dict)  # configs for other backends, by name


@dataclass(frozen=True, slots=True)
class Kind:
    """A repository for one kind of machine; `default` is in config.pbtxt."""

    default: Backing
    alternatives: tuple[Backing, ...]
    engine_py: str
    reader_py: str


ON_CPU = Kind(OPENVINO_BACKING, (), ENGINE_PY, PICTURE_PY)
ON_GPU = Kind(TENSORRT, ALTERNATIVES, BATCH_ENGINE_PY, READER_PY)


def kind_of(engine: str) -> Kind:
    return ON_CPU if engine == "openvino" else ON_GPU


def repository_layout(sizes: list[str], side: int, kind: Kind = ON_CPU) -> Iterator[ModelFolder]:
    """All folders, the first size also as `yolo`."""
    yield _engine(kind, "yolo", "The raw head, for clients that do their own NMS.", RAW, sizes[0], side)
    readers = {backing.name: preprocess_config(backing, side) for backing in kind.alternatives}
    yield ModelFolder(
        PREPROCESS, preprocess_config(kind.default, side), kind.reader_py, None, sizes[0], alternatives=readers
    )
    for size in sizes:
        yield from _size_layout(kind, size, side)


def _size_layout(kind: Kind, size: str, side: int) -> Iterator[ModelFolder]:
    name = f"yolo_{size}"
    yield _engine(kind, name, "Track B: the raw head; NMS is done outside.", RAW, size, side)
    yield _engine(kind, f"{name}_end2end", "Track C: NMS inside.", END2END, size, side)
    for tier in TIERS:
        purpose = f"The engine of track D, {tier.name}: letterboxed bytes in."
        yield _engine(kind, tier_engine_name(size, tier), purpose, TIER, size, side, tier)
        yield ModelFolder(f"{name}{tier.suffix}", pipeline_config(size, tier), None, None, size)


def _engine(
    kind: Kind, name: str, purpose: str, graph: str, size: str, side: int, tier: Tier | None = None
) -> ModelFolder:
    def config(backing: Backing) -> str:
        return engine_config(backing, name, purpose, graph, side, tier)

    others = {backing.name: config(backing) for backing in kind.alternatives}
    return ModelFolder(name, config(kind.default), kind.engine_py, graph, size, tier, others)

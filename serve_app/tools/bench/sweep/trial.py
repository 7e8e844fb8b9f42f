"""One setting tried: a Triton server with the changed config, under closed loops of requests."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig
from tritonclient.utils import triton_to_np_dtype

from serve_app.detection.preprocess import as_unit_planes, decode, letterbox
from serve_app.errors import InvalidRequestError, ServeAppError
from serve_app.settings import TritonSettings
from serve_app.tools.bench.load import Load, LoadGenerator, Reply
from serve_app.tools.bench.sweep.search import Point, Setting
from serve_app.triton.engine import Engine
from serve_app.triton.overlay import Overlay, Preparation
from serve_app.triton.repository import ModelRepository
from serve_app.types import MAX_PIXELS

Arrays = dict[str, npt.NDArray[Any]]
MAX_INTEGER = 100


def inputs_of(config: ModelConfig, picture: bytes, shapes: Mapping[str, Sequence[int]]) -> Arrays:
    """For a request with a batch of one."""
    unknown = set(shapes) - {tensor.name for tensor in config.input}
    if unknown:
        raise InvalidRequestError(f"--shape: {config.name} has no input {', '.join(sorted(unknown))}")
    found = {}
    for tensor in config.input:
        array = _from_picture(tensor.name, list(tensor.dims), tensor.data_type, picture)
        if array is None:
            array = _random(tensor, shapes.get(tensor.name))
        found[tensor.name] = array[None] if config.max_batch_size else array
    return found


def _from_picture(name: str, dims: list[int], data_type: int, picture: bytes) -> npt.NDArray[Any] | None:
    """For inputs of detectors: encoded bytes, a letterboxed square, or its planes; None for other inputs."""
    if name == "encoded" and data_type == DataType.TYPE_UINT8:
        return np.frombuffer(picture, np.uint8)
    if name != "images" or len(dims) != 3 or min(dims) < 0:
        return None
    square, _ = letterbox(decode(picture, MAX_PIXELS), max(dims))
    return as_unit_planes(square)[0] if data_type == DataType.TYPE_FP32 else square


def _random(tensor: Any, shape: Sequence[int] | None) -> npt.NDArray[Any]:
    dims = list(shape) if shape else list(tensor.dims)
    if len(dims) != len(tensor.dims) or any(
        fixed not in (-1, size) for fixed, size in zip(tensor.dims, dims, strict=False)
    ):
        raise InvalidRequestError(
            f"--shape: {tensor.name} has the shape {list(tensor.dims)}, which {dims} does not fit"
        )
    if min(dims, default=0) < 0:
        raise InvalidRequestError(
            f"--shape: {tensor.name} has the shape {dims}; pass a fixed one, as in {tensor.name}:16"
        )
    name = DataType.Name(tensor.data_type).removeprefix("TYPE_")
    if name == "STRING":
        return np.full(dims, b"text", np.object_)
    dtype = np.dtype(triton_to_np_dtype(name))
    return np.random.default_rng(0).integers(0, 2 if dtype == np.bool_ else MAX_INTEGER, dims).astype(dtype)


@dataclass(frozen=True, slots=True)
class Trial:
    """Requests go to `through`: the model itself, or an ensemble that has it as a step."""

    repository: ModelRepository
    model: str
    through: str
    inputs: Arrays
    duration_s: float
    warmup_s: float
    preparation: Preparation

    @property
    def config(self) -> ModelConfig:
        return self.repository.all[self.model].config

    def run(self, setting: Setting, clients: Sequence[int]) -> list[Point]:
        preparation = replace(self.preparation, configs={self.model: setting.applied_to(self.config)})
        with closing(Overlay(self.repository, preparation)) as overlay:
            overlay.refresh(self.through, self.model)
            settings = TritonSettings(name="sweep", models=(self.through,), drain_timeout_s=5.0)
            engine = Engine(ModelRepository(overlay.path, [self.through], None), settings)
            engine.start()
            try:
                return [self._measure(engine, setting, count) for count in clients]
            finally:
                engine.stop()

    def _measure(self, engine: Engine, setting: Setting, clients: int) -> Point:
        async def send(_: int) -> Reply:
            try:
                await engine.infer(self.through, self.inputs)
            except ServeAppError as problem:
                return Reply(problem.message)
            return Reply()

        result = asyncio.run(LoadGenerator(Load(clients, self.duration_s, self.warmup_s), send).run())
        if result.errors and not result.latencies_ms:
            raise ServeAppError(f"every request failed: {next(iter(result.errors))}")
        at = result.percentiles_ms
        return Point(setting, clients, result.throughput, at.get("p50", 0.0), at.get("p99", 0.0), result.errors.total())

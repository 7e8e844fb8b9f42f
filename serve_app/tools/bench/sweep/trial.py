"""One setting tried: a Triton server with the changed config, under closed loops of requests."""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from tritonclient.grpc.model_config_pb2 import ModelConfig

from serve_app.errors import ServeAppError
from serve_app.settings import TritonSettings
from serve_app.tools.bench.load import Load, LoadGenerator, Reply
from serve_app.tools.bench.sweep.inputs import Arrays
from serve_app.tools.bench.sweep.space import Setting
from serve_app.triton.engine import Engine
from serve_app.triton.overlay import Overlay, Preparation
from serve_app.triton.repository import ModelRepository


@dataclass(frozen=True, slots=True)
class Point:
    """A setting measured with one number of clients."""

    setting: Setting
    clients: int
    rate: float
    p50_ms: float
    p99_ms: float
    errors: int


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

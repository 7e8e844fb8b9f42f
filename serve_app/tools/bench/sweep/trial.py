"""One setting tried: the repository with it in links, a Triton server over that, and closed loops of requests."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from tritonclient.grpc.model_config_pb2 import ModelConfig

from serve_app.errors import ServeAppError
from serve_app.settings import TritonSettings
from serve_app.tools.bench.load import Outcome
from serve_app.tools.bench.report import percentiles
from serve_app.tools.bench.sweep.inputs import Arrays
from serve_app.tools.bench.sweep.space import Setting
from serve_app.triton.engine import Engine
from serve_app.triton.overlay import Overlay, Preparation
from serve_app.triton.repository import ModelRepository


@dataclass(frozen=True, slots=True)
class Point:
    """A setting under so many clients."""

    setting: Setting
    clients: int
    rate: float
    p50_ms: float
    p99_ms: float
    errors: int


@dataclass(frozen=True, slots=True)
class Trial:
    """Asks `through`, which is the model itself or an ensemble over it."""

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
                return [self._point(engine, setting, count) for count in clients]
            finally:
                engine.stop()

    def _point(self, engine: Engine, setting: Setting, clients: int) -> Point:
        outcome = asyncio.run(self._loop(engine, clients))
        at = percentiles(outcome.took_ms)
        rate = len(outcome.took_ms) / self.duration_s
        return Point(setting, clients, rate, at.get("p50", 0.0), at.get("p99", 0.0), outcome.errors.total())

    async def _loop(self, engine: Engine, clients: int) -> Outcome:
        outcome = Outcome(errors=Counter())
        begin = time.perf_counter() + self.warmup_s
        end = begin + self.duration_s

        async def client() -> None:
            while (asked := time.perf_counter()) < end:
                try:
                    await engine.infer(self.through, self.inputs)
                except ServeAppError as problem:
                    outcome.errors[problem.message] += 1
                    continue
                if begin <= (now := time.perf_counter()) < end:
                    outcome.took_ms.append((now - asked) * 1e3)

        await asyncio.gather(*(client() for _ in range(clients)))
        if outcome.errors and not outcome.took_ms:
            raise ServeAppError(f"every request failed: {next(iter(outcome.errors))}")
        return outcome

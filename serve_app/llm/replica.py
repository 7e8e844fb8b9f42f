"""The Ray Serve deployment that hosts one language model: ray.serve.llm's server, with what the router asks of it."""

import asyncio
import logging
import os
import time
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from ray import serve
from ray.llm._internal.serve.core.protocol import RawRequestInfo
from ray.serve._private.tracing_utils import is_tracing_enabled
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer

from serve_app.errors import (
    InvalidRequestError,
    ModelLoadError,
    NotFoundError,
    ServeAppError,
    UnsupportedError,
)
from serve_app.llm.contracts import Generation, config_of, metadata_of, read_generation
from serve_app.llm.engine import Engine
from serve_app.llm.failures import in_our_words
from serve_app.llm.openai import ENDPOINTS, answers, read_request
from serve_app.llm.reasons import log_position, reason_of
from serve_app.llm.sampling import read_parameters
from serve_app.llm.writing import Writing
from serve_app.settings import traces_endpoint
from serve_app.telemetry import tracing
from serve_app.telemetry.identity import request_id
from serve_app.telemetry.logging import keep_contents_out
from serve_app.telemetry.warmup import WarmUp
from serve_app.types.deadlines import left_s, until
from serve_app.types.tensors import InferAnswer, InferRequest

logger = logging.getLogger("ray.serve")
WATCH_INTERVAL_S = 0.2
LAST_WORDS_S = 1.0  # for errors on their way to callers, before a replica without an engine ends
VERSIONS = (-1, 1)


class LanguageModel(LLMServer):  # type: ignore[misc]
    """Ready when its engine has answered; ends itself when the engine is dead, and Serve starts another."""

    async def __init__(self, llm_config: LLMConfig, *, engine_cls: type[Any] = Engine) -> None:  # type: ignore[misc]
        self._name = llm_config.model_id
        keep_contents_out()
        began, position = time.monotonic(), log_position()
        if is_tracing_enabled():
            llm_config.get_engine_config().engine_kwargs.setdefault("otlp_traces_endpoint", traces_endpoint())
        try:
            await super().__init__(llm_config, engine_cls=engine_cls)
        except Exception as problem:
            logger.error(f"{self._name} can't be loaded", exc_info=problem)
            raise ModelLoadError(f"{self._name} can't be loaded: {reason_of(problem, position)}") from None
        self._warming = WarmUp({self._name: self._probe})
        await self._warming.run()
        self._watching = asyncio.create_task(self._watch())
        logger.info(f"{self._name}: ready in {time.monotonic() - began:.1f} s")

    async def _start_engine(self) -> None:
        """Without ray.serve.llm's report of its use: 700 MB for an actor, which imports vLLM while the start waits."""
        await self.engine.start()

    async def _probe(self) -> None:
        """One token is not enough: vLLM compiles the ranks of log probabilities when they are first asked for."""
        if self.engine.generates:
            parameters = read_parameters({"max_tokens": 2, "temperature": 1, "logprobs": 1}, stream=False)
            async for _ in self.engine.generate("a", parameters, f"probe-{uuid.uuid4()}"):
                pass

    async def _watch(self) -> None:
        """Serve's own health checks would take several periods, while every request to here fails at once."""
        while not self.engine.dead:  # noqa: ASYNC110 - vLLM has no event for it
            await asyncio.sleep(WATCH_INTERVAL_S)
        logger.error(f"the engine of {self._name} died; this replica ends, and Serve starts another")
        await asyncio.sleep(LAST_WORDS_S)
        os._exit(1)

    async def check_health(self) -> None:
        """The controller asks; one of vLLM's errors would make it import vLLM, and every deployment would wait."""
        with in_our_words(self._name):
            await super().check_health()

    async def openai(
        self, endpoint: str, document: Mapping[str, Any], headers: Mapping[str, str], deadline: float | None = None
    ) -> AsyncGenerator[tuple[int, str]]:
        """Status and text of each piece of the answer."""
        left_s(deadline)
        method, *_ = ENDPOINTS[endpoint]
        with in_our_words(self._name):
            request = read_request(endpoint, document)
            known = {"x-request-id": request_id()} | dict(headers) | tracing.headers()
            replies = await getattr(self, method)(request, RawRequestInfo(headers=known))
            async with aclosing(answers(replies)) as pieces:
                async for piece in pieces:
                    yield piece

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Serve's name for it; Serve asks where the deployment scales by it."""
        pressure: dict[str, float] = self.engine.load.pressure()
        return pressure

    async def infer(self, asked: InferRequest) -> InferAnswer:
        generation = read_generation(asked)
        if generation.stream:
            raise UnsupportedError(f"'{asked.model}' streams its answers by ModelStreamInfer or generate_stream only")
        async with aclosing(self.stream(asked, generation)) as stream:
            return await anext(stream)

    async def stream(self, asked: InferRequest, generation: Generation | None = None) -> AsyncGenerator[InferAnswer]:
        """Every answer as it comes; who stops listening aborts the sequence."""
        self._require(asked.model, asked.version)
        left_s(asked.deadline, f"the deadline passed before model '{asked.model}' was reached")
        generation = generation or read_generation(asked)
        parameters = read_parameters(generation.parameters, generation.stream)
        if generation.adapter and generation.adapter not in self.engine.adapters:
            there_is = ", ".join(self.engine.adapters) or "none"
            raise NotFoundError(f"no adapter {generation.adapter!r}; there is: {there_is}")
        writing = Writing(asked, generation, parameters.n)
        identity = f"{asked.id or request_id()}-{uuid.uuid4()}"
        outputs = self.engine.generate(generation.prompt, parameters, identity, generation.adapter)
        with in_our_words(self._name):
            async with aclosing(outputs):
                while not writing.finished:
                    async with until(asked.deadline, f"the deadline passed while model '{asked.model}' was at work"):
                        output = await anext(outputs)
                    yield writing.answer(output)

    def _require(self, model: str, version: int) -> None:
        if version not in VERSIONS:
            raise NotFoundError(f"model '{model}' has version 1 only, not {version}")
        if not self.engine.generates:
            raise UnsupportedError(f"model '{model}' makes no text; it is served under /v1/embeddings")

    async def ready(self, model: str, version: int) -> bool:
        return version in VERSIONS and not self.engine.dead

    async def metadata(self, model: str, version: int) -> dict[str, Any]:
        self._require(model, version)
        return metadata_of(model)

    async def config(self, model: str, version: int) -> dict[str, Any]:
        self._require(model, version)
        return config_of(model)

    async def statistics(self, model: str = "", version: int = -1) -> list[dict[str, Any]]:
        if version not in VERSIONS:
            raise InvalidRequestError(f"requested model version {version} of '{model}' is not available")
        return [self.engine.statistics.row(self._name)]

    async def index(self) -> tuple[str, list[dict[str, str]]]:
        """Which replica this is, and the state of its one model."""
        state = {"state": "READY", "reason": ""} if not self.engine.dead else {"state": "UNAVAILABLE", "reason": "died"}
        replica = str(serve.get_replica_context().replica_id.unique_id)
        return replica, [{"name": self._name, "version": "1", **state}]

    async def describe(self) -> dict[str, Any]:
        """What the router tells of this deployment."""
        return {
            "models": (await self.index())[1],
            "max_length": self.engine.max_length,
            "adapters": self.engine.adapters,
            "running": self.engine.statistics.running,
        }

    async def change(self, change: Any) -> tuple[str, ServeAppError | None]:
        problem = UnsupportedError(f"'{change.model}' is a language model; the configuration says which are served")
        return (await self.index())[0], problem

    async def start_warming(self) -> None:
        self._warming.start()

    async def warming(self) -> dict[str, Any]:
        return self._warming.progress()

"""The Ray Serve deployment of one language model: ray.serve.llm's server plus the methods that the router calls."""

import asyncio
import logging
import os
import time
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any

from ray import serve
from ray.llm._internal.serve.core.protocol import RawRequestInfo
from ray.serve._private.tracing_utils import is_tracing_enabled
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer
from vllm.v1.engine.exceptions import EngineDeadError

from serve_app.errors import (
    InvalidRequestError,
    ModelLoadError,
    NotFoundError,
    ReplicaKilledError,
    ReplicaLostError,
    ServeAppError,
    UnavailableError,
    UnsupportedError,
)
from serve_app.llm import contracts, openai_protocol
from serve_app.llm.contracts import GenerationRequest
from serve_app.llm.engine import Engine
from serve_app.llm.errors import startup_reason, stderr_size, translate_errors
from serve_app.llm.limits import LIMITS, NO_MORE
from serve_app.llm.openai_protocol import Piece, wants_usage, with_usage
from serve_app.llm.outputs import AnswerBuilder
from serve_app.llm.sampling import build_sampling_params
from serve_app.settings import traces_endpoint
from serve_app.telemetry import tracing
from serve_app.telemetry.replica import keep_what_is_loaded
from serve_app.telemetry.warmup import WarmUp
from serve_app.types.deadlines import left_s, until
from serve_app.types.tensors import InferAnswer, InferRequest

logger = logging.getLogger("ray.serve")
WATCH_INTERVAL_S = 0.2
EXIT_DELAY_S = 1.0  # lets the errors of running requests reach their callers before a replica exits
VERSIONS = (-1, 1)


class LanguageModel(LLMServer):  # type: ignore[misc]
    """Ready once its engine has answered a probe; exits when the engine dies, and Serve starts another replica."""

    _limits = NO_MORE

    async def __init__(self, llm_config: LLMConfig, *, engine_cls: type[Any] = Engine) -> None:  # type: ignore[misc]
        self._name = llm_config.model_id
        self._limits = llm_config.experimental_configs.get(LIMITS, NO_MORE)
        started, log_start = time.monotonic(), stderr_size()
        if is_tracing_enabled():
            llm_config.get_engine_config().engine_kwargs.setdefault("otlp_traces_endpoint", traces_endpoint())
        try:
            await super().__init__(llm_config, engine_cls=engine_cls)
        except Exception as problem:
            logger.error(f"model '{self._name}' can't be loaded", exc_info=problem)
            reason = startup_reason(problem, log_start)
            raise ModelLoadError(f"model '{self._name}' can't be loaded: {reason}") from None
        self._warmup = WarmUp({self._name: self._probe})
        await self._warmup.run()
        self._watching = asyncio.create_task(self._watch())
        keep_what_is_loaded()
        logger.info(f"{self._name}: ready in {time.monotonic() - started:.1f} s")

    async def _start_engine(self) -> None:
        """Skips ray.serve.llm's usage report, whose actor takes 700 MB and delays the start by an import of vLLM."""
        await self.engine.start()

    async def _probe(self) -> None:
        """With log probabilities, because vLLM compiles the kernel of their ranks at the first request for them."""
        if self.engine.generates:
            parameters = build_sampling_params({"max_tokens": 2, "temperature": 1, "logprobs": 1}, stream=False)
            async for _ in self.engine.generate("a", parameters, f"probe-{uuid.uuid4()}"):
                pass

    async def _watch(self) -> None:
        """Exit soon: Serve's health checks take several periods, in which every request sent here would fail."""
        while not self.engine.dead:  # noqa: ASYNC110 - vLLM has no event for it
            await asyncio.sleep(WATCH_INTERVAL_S)
        logger.error(f"the engine of model '{self._name}' died; the replica exits and Serve starts another")
        await asyncio.sleep(EXIT_DELAY_S)
        os._exit(1)

    async def check_health(self) -> None:
        """Translated: an error of vLLM would make Serve's controller import vLLM, and stall every deployment."""
        with translate_errors(self._name):
            await super().check_health()

    async def openai(
        self, endpoint: str, document: Mapping[str, Any], headers: Mapping[str, str], deadline: float | None = None
    ) -> AsyncGenerator[Piece]:
        left_s(deadline)
        self._require_alive()
        method, *_ = openai_protocol.ENDPOINTS[endpoint]
        with self._translated():
            request = openai_protocol.parse_request(endpoint, with_usage(document), self._limits)
            passed_on = {"x-request-id": tracing.request_id()} | dict(headers) | tracing.headers()
            replies = await getattr(self, method)(request, RawRequestInfo(headers=passed_on))
            answer = openai_protocol.stream_answer(replies, wants_usage(document))
            async with aclosing(answer):
                async for piece in answer:
                    if self.engine.dead and piece[0] >= ServeAppError.status:
                        raise self._death()
                    yield piece

    @contextmanager
    def _translated(self) -> Iterator[None]:
        with translate_errors(self._name):
            try:
                yield
            except EngineDeadError:
                raise self._death() from None

    def _death(self) -> UnavailableError:
        """What a request was at work on is tried elsewhere if the engine was killed, and not if it may be the cause."""
        kind = ReplicaKilledError if self.engine.was_killed() else UnavailableError
        return kind(f"the engine of model '{self._name}' died; try again")

    def _require_alive(self) -> None:
        if self.engine.dead:
            raise ReplicaLostError(f"the engine of model '{self._name}' has died; its replica will be replaced")

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve for the deployment's autoscaling policy."""
        report: dict[str, float] = self.engine.load.report()
        return report

    async def infer(self, request: InferRequest) -> InferAnswer:
        generation = contracts.parse_request(request)
        if generation.stream:
            raise UnsupportedError(f"model '{request.model}' streams through ModelStreamInfer or generate_stream only")
        async with aclosing(self.stream(request, generation)) as answers:
            return await anext(answers)

    async def stream(
        self, request: InferRequest, generation: GenerationRequest | None = None
    ) -> AsyncGenerator[InferAnswer]:
        """Yield an answer for each output of the engine; closing the generator aborts the sequence."""
        self._require_served(request.model, request.version)
        left_s(request.deadline, f"the deadline passed before model '{request.model}' was reached")
        generation = generation or contracts.parse_request(request)
        parameters = build_sampling_params(generation.parameters, generation.stream)
        if generation.adapter and generation.adapter not in self.engine.adapters:
            available = ", ".join(self.engine.adapters) or "none"
            raise NotFoundError(f"adapter {generation.adapter!r} not found; available: {available}")
        builder = AnswerBuilder(request, generation, parameters.n)
        engine_id = f"{request.id or tracing.request_id()}-{uuid.uuid4()}"
        self._require_alive()
        outputs = self.engine.generate(generation.prompt, parameters, engine_id, generation.adapter)
        with self._translated():
            async with aclosing(outputs):
                while not builder.finished:
                    passed = f"the deadline passed while model '{request.model}' was at work"
                    async with until(request.deadline, passed):
                        output = await anext(outputs)
                    yield builder.build(output)

    def _require_served(self, model: str, version: int) -> None:
        if version not in VERSIONS:
            raise NotFoundError(f"model '{model}' has no version {version}; available: 1")
        if not self.engine.generates:
            raise UnsupportedError(f"model '{model}' does not generate text; use /v1/embeddings")

    async def ready(self, model: str, version: int) -> bool:
        return version in VERSIONS and not self.engine.dead

    async def metadata(self, model: str, version: int) -> dict[str, Any]:
        self._require_served(model, version)
        return contracts.build_metadata(model)

    async def config(self, model: str, version: int) -> dict[str, Any]:
        self._require_served(model, version)
        return contracts.build_model_config(model)

    async def statistics(self, model: str = "", version: int = -1) -> list[dict[str, Any]]:
        if version not in VERSIONS:
            raise InvalidRequestError(f"requested model version {version} of '{model}' is not available")
        return [self.engine.statistics.row(self._name)]

    async def index(self) -> tuple[str, list[dict[str, str]]]:
        """The replica's id, and the row of its model in Triton's repository index."""
        dead = self.engine.dead
        state = {"state": "UNAVAILABLE", "reason": "the engine died"} if dead else {"state": "READY", "reason": ""}
        replica = str(serve.get_replica_context().replica_id.unique_id)
        return replica, [{"name": self._name, "version": "1", **state}]

    async def describe(self) -> dict[str, Any]:
        """What the router shows of this deployment."""
        return {
            "models": (await self.index())[1],
            "max_length": self.engine.max_length,
            "adapters": self.engine.adapters,
            "running": self.engine.statistics.running,
        }

    async def change(self, change: Any) -> tuple[str, ServeAppError | None]:
        """Loads and unloads are refused: the configuration decides which language models are served."""
        problem = UnsupportedError(
            f"'{change.model}' is a language model, which can't be loaded or unloaded; change llms in the configuration"
        )
        return (await self.index())[0], problem

    async def start_warming(self) -> None:
        self._warmup.start()

    async def warming(self) -> dict[str, Any]:
        return self._warmup.progress()

"""vLLM's engine as ray.serve.llm starts it, and the plain generation that Triton's contracts need."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine
from ray.serve.llm import LLMConfig
from vllm import RequestOutput, SamplingParams

from serve_app.llm.load import Load
from serve_app.llm.statistics import Statistics
from serve_app.telemetry import tracing


class Engine(VLLMEngine):  # type: ignore[misc]
    """The one place that knows ray.serve.llm's engine from inside."""

    def __init__(self, configuration: LLMConfig) -> None:
        super().__init__(configuration)
        self.statistics = Statistics()
        self.load = Load()

    def _start_async_llm_engine(self, arguments: Any, config: Any, placement_group: Any) -> Any:
        client = super()._start_async_llm_engine(arguments, config, placement_group)
        if client.logger_manager:
            client.logger_manager.stat_loggers.append(self.load)
        client.generate = self._counted(client.generate)  # whoever asks, OpenAI's client or Triton's
        return client

    def _counted(self, generate: Callable[..., AsyncGenerator[RequestOutput]]) -> Callable[..., Any]:
        async def counted(*arguments: Any, **named: Any) -> AsyncIterator[RequestOutput]:
            with self.statistics.watching() as note_times:
                # closed at once when the caller leaves, or the sequence would go on until it is collected
                async with aclosing(generate(*arguments, **named)) as outputs:
                    async for output in outputs:
                        if output.finished and output.metrics:
                            note_times(output.metrics)
                        yield output

        return counted

    def generate(
        self, prompt: str, parameters: SamplingParams, request_id: str, adapter: str | None = None
    ) -> AsyncGenerator[RequestOutput]:
        """Every output as it comes; who stops listening aborts the sequence."""
        adapters = self._oai_models.lora_requests
        lora = adapters[adapter] if adapter else None
        outputs: AsyncGenerator[RequestOutput] = self._engine_client.generate(
            prompt, parameters, request_id, lora_request=lora, trace_headers=tracing.headers()
        )
        return outputs

    @property
    def adapters(self) -> list[str]:
        return list(self._oai_models.lora_requests)

    @property
    def generates(self) -> bool:
        """False for a model that embeds only."""
        return self._oai_serving_completion is not None

    @property
    def max_length(self) -> int:
        return int(self._engine_client.model_config.max_model_len)

    @property
    def dead(self) -> bool:
        return bool(self._engine_client.errored)

    async def shutdown(self) -> None:
        await super().shutdown()
        if self._engine_client is not None:
            self._engine_client.shutdown()

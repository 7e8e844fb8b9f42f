"""Lets a stream's outputs wait for more where many streams are under way: an event costs more than a token does."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from vllm.outputs import PoolingRequestOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine import async_llm
from vllm.v1.engine.output_processor import RequestOutputCollector

FEW = 4  # streams, of which none waits
EVENTS_PER_S = 100  # of all those above
INTERVAL = "serve_app_stream_interval_ms"  # in the configuration that a replica is given


class PacedOutputs(RequestOutputCollector):  # type: ignore[misc]
    """Gives the first output at once, and what follows at intervals; vLLM merges what waits here into one output."""

    def __init__(self, kind: RequestOutputKind, request_id: str, interval_s: Callable[[], float]) -> None:
        super().__init__(kind, request_id)
        self._interval_s = interval_s
        self._begun = False
        self._ended = asyncio.Event()

    def put(self, output: RequestOutput | PoolingRequestOutput | Exception) -> None:
        super().put(output)
        if isinstance(output, Exception) or output.finished:
            self._ended.set()

    async def get(self) -> RequestOutput | PoolingRequestOutput:
        interval_s = self._interval_s()
        if interval_s and self._begun and not self._ended.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._ended.wait()
        self._begun = True
        return await super().get()

    def get_nowait(self) -> RequestOutput | PoolingRequestOutput | None:
        """Nothing while outputs wait for more: vLLM asks here before it awaits `get`."""
        if self._begun and not self._ended.is_set():
            return None
        output = super().get_nowait()
        self._begun = self._begun or output is not None
        return output


def pace_streams(most_ms: float, running: Callable[[], int]) -> None:
    """For every request of the engine in this process; the interval grows with the number of those that run."""
    most_s = most_ms / 1e3
    # vLLM has no setting for it: its own `stream_interval` counts tokens, however slowly they come.
    async_llm.RequestOutputCollector = partial(
        PacedOutputs, interval_s=lambda: min(most_s, max(0, running() - FEW) / EVENTS_PER_S)
    )

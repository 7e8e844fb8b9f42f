"""Triton's timestamps of a request, for the times in answers and for traces."""

import asyncio
import time
from typing import Any

from serve_app.telemetry.tracing import past_span
from serve_app.triton.binding import find_tritonserver

# Triton releases a request's trace an instant after its answer.
TIMEOUT_S = 0.5


class Timing:
    """Create it before sending the request; only the embedded engine offers timestamps."""

    def __init__(self, request: Any) -> None:
        self._whole = asyncio.Event()
        self._trace: Any = None
        triton = find_tritonserver()
        if hasattr(triton, "InferenceTrace"):
            inbox = triton.inbox_of(asyncio.get_running_loop())
            self._trace = request.trace = triton.InferenceTrace(lambda: inbox.post(self._whole.set))

    async def computed(self) -> list[Any]:
        """A span for each model that ran; empty where timestamps aren't available."""
        if self._trace is None:
            return []
        if not self._whole.is_set():
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await self._whole.wait()
            except TimeoutError:
                return []
        return list(self._trace.computed)


def record_spans(computed: list[Any], request_id: str) -> None:
    """One OpenTelemetry span for each model, with its stages; Triton's timestamps are of the monotonic clock."""
    to_unix = time.time_ns() - time.monotonic_ns()
    for span in computed:
        begin = span.queue_start_ns or span.compute_start_ns
        attributes = {"triton.model": span.model, "triton.request_id": request_id}
        with past_span(f"triton {span.model}", begin + to_unix, span.compute_end_ns + to_unix, attributes):
            for stage, start, end in span.stages:
                with past_span(stage, start + to_unix, end + to_unix):
                    pass

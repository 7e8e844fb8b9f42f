"""Timestamps of one request inside Triton and its ensembles, an addition to NVIDIA's Python API."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from ctypes import byref, c_char_p, c_void_p
from dataclasses import dataclass

from .capi import TraceActivityFn, TraceReleaseFn, api, check
from .threads import on_tritons_thread

_log = logging.getLogger(__name__)
_TIMESTAMPS = 0x4
QUEUE_START, COMPUTE_START, INPUT_END, OUTPUT_START, COMPUTE_END = 1, 2, 3, 4, 5

_numbers = itertools.count(1)
_traces: dict[int, InferenceTrace] = {}


@dataclass(slots=True)
class TraceSpan:
    """One model's work on the request, in nanoseconds of the monotonic clock; 0 for what did not happen."""

    model: str
    queue_start_ns: int = 0
    compute_start_ns: int = 0
    input_end_ns: int = 0
    output_start_ns: int = 0
    compute_end_ns: int = 0

    @property
    def queue_ms(self) -> float:
        return max(0, self.compute_start_ns - self.queue_start_ns) / 1e6 if self.queue_start_ns else 0.0

    @property
    def compute_ms(self) -> float:
        return max(0, self.compute_end_ns - self.compute_start_ns) / 1e6

    @property
    def stages(self) -> list[tuple[str, int, int]]:
        """Name, begin and end of each; only `compute` for a backend that reports no input and output times."""
        queue = [("queue", self.queue_start_ns, self.compute_start_ns)] if self.queue_start_ns else []
        marks = (self.compute_start_ns, self.input_end_ns, self.output_start_ns, self.compute_end_ns)
        if 0 in marks:
            return [*queue, ("compute", self.compute_start_ns, self.compute_end_ns)]
        names = ("compute input", "compute infer", "compute output")
        return [*queue, *zip(names, marks, marks[1:], strict=False)]


class InferenceTrace:
    """Set it as a request's `trace`; Triton's thread calls `on_complete` when `spans` is complete."""

    def __init__(self, on_complete: Callable[[], None]) -> None:
        self.spans: list[TraceSpan] = []
        self._on_complete = on_complete
        self._open: dict[int, TraceSpan] = {}  # by their pointers, which are used again once they are released
        self._number = next(_numbers)

    @property
    def computed(self) -> list[TraceSpan]:
        """The spans of the models that computed, in their order; an ensemble itself computes nothing."""
        ran = [span for span in self.spans if span.compute_end_ns]
        return sorted(ran, key=lambda span: span.compute_start_ns)

    def create(self) -> int:
        """The object of the C API, which the sender gives to Triton or discards."""
        pointer = c_void_p()
        _traces[self._number] = self
        check(api().InferenceTraceNew(byref(pointer), _TIMESTAMPS, 0, _on_activity, _on_release, self._number))
        assert pointer.value is not None
        return pointer.value

    def discard(self, pointer: int) -> None:
        """Delete the trace of a refused request, unless Triton has released it already."""
        if _traces.pop(self._number, None) is not None:
            api().InferenceTraceDelete(pointer)

    def _record(self, pointer: int, activity: int, timestamp_ns: int) -> None:
        span = self._open.get(pointer)
        if span is None:
            name = c_char_p()
            api().InferenceTraceModelName(pointer, byref(name))
            span = self._open[pointer] = TraceSpan((name.value or b"").decode())
            self.spans.append(span)
        if activity == QUEUE_START:
            span.queue_start_ns = timestamp_ns
        elif activity == COMPUTE_START:
            span.compute_start_ns = timestamp_ns
        elif activity == INPUT_END:
            span.input_end_ns = timestamp_ns
        elif activity == OUTPUT_START:
            span.output_start_ns = timestamp_ns
        elif activity == COMPUTE_END:
            span.compute_end_ns = timestamp_ns

    def _release(self, pointer: int) -> None:
        self._open.pop(pointer, None)
        if not self._open:
            _traces.pop(self._number, None)
            self._on_complete()


@on_tritons_thread(TraceActivityFn)
def _on_activity(pointer: int, activity: int, timestamp_ns: int, number: int) -> None:
    try:
        trace = _traces.get(number)
        if trace is not None:
            trace._record(pointer, activity, timestamp_ns)
    except BaseException:
        _log.exception("trace activity callback failed")


@on_tritons_thread(TraceReleaseFn)
def _on_release(pointer: int, number: int) -> None:
    try:
        trace = _traces.get(number)
        if trace is not None:
            trace._release(pointer)
        api().InferenceTraceDelete(pointer)
    except BaseException:
        _log.exception("trace release callback failed")

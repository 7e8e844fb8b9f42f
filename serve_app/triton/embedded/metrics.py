"""What the program adds to Triton's own metrics and log."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from ctypes import byref, c_double, c_int, c_void_p
from pathlib import Path

from .capi import api, check, parameter_array, text
from .datatypes import LogLevel, MetricKind


class MetricFamily:
    """The metrics of one name and kind, which differ in their labels."""

    def __init__(self, kind: MetricKind, name: str, description: str) -> None:
        self._pointer = c_void_p()
        encoded = text(name, "metric name"), text(description, "metric description")
        check(api().MetricFamilyNew(byref(self._pointer), kind, *encoded))
        self._kind = MetricKind(kind)

    def __del__(self) -> None:
        pointer = getattr(self, "_pointer", None)
        if pointer:
            api().MetricFamilyDelete(pointer)


class Metric:
    """One metric of a family; a histogram needs buckets."""

    def __init__(
        self,
        family: MetricFamily,
        labels: Mapping[str, str] | None = None,
        buckets: Sequence[float] | None = None,
    ) -> None:
        self._family = family  # a family must outlive its metrics
        self._pointer = c_void_p()
        arguments = _histogram_arguments(buckets) if family._kind == MetricKind.HISTOGRAM else c_void_p()
        try:
            with parameter_array(labels or {}) as array:
                count = len(labels or {})
                check(api().MetricNewWithArgs(byref(self._pointer), family._pointer, array, count, arguments))
        finally:
            if arguments:
                api().MetricArgsDelete(arguments)

    def __del__(self) -> None:
        pointer = getattr(self, "_pointer", None)
        if pointer:
            api().MetricDelete(pointer)

    def increment(self, value: float) -> None:
        """Add to a counter or gauge; a counter refuses a negative value."""
        check(api().MetricIncrement(self._pointer, value))

    def set_value(self, value: float) -> None:
        """Set a gauge."""
        check(api().MetricSet(self._pointer, value))

    def observe(self, value: float) -> None:
        """Add an observation to a histogram."""
        check(api().MetricObserve(self._pointer, value))

    @property
    def value(self) -> float:
        result = c_double()
        check(api().MetricValue(self._pointer, byref(result)))
        return result.value

    @property
    def kind(self) -> MetricKind:
        result = c_int()
        check(api().GetMetricKind(self._pointer, byref(result)))
        return MetricKind(result.value)


def _histogram_arguments(buckets: Sequence[float] | None) -> c_void_p:
    pointer, bounds = c_void_p(), list(buckets or ())
    check(api().MetricArgsNew(byref(pointer)))
    check(api().MetricArgsSetHistogram(pointer, (c_double * max(1, len(bounds)))(*bounds), len(bounds)))
    return pointer


def LogMessage(level: LogLevel, message: str) -> None:  # noqa: N802 - NVIDIA's name
    """Write a message with the caller's file and line to Triton's log, if that level is on."""
    frame = sys._getframe(1)
    filename = Path(frame.f_code.co_filename).name.encode()
    # Triton's log takes a C string: what follows a NUL would be lost.
    line = message.replace("\0", "\\0").encode("utf-8", "replace")
    check(api().LogMessage(level, filename, frame.f_lineno, line))

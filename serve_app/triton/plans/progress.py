"""Reports TensorRT's progress: a line every few seconds, however often TensorRT calls back."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

LINE_EVERY_S = 3.0
# TensorRT makes no calls for minutes while it times kernels.
PULSE_S = 30.0

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Phase:
    steps: int
    is_outermost: bool
    started: float


class Progress:
    """Turns TensorRT's callbacks, from any thread and for nested phases, into few lines."""

    def __init__(self, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._clock = clock
        self._lock = threading.Lock()
        self._phases: dict[str, Phase] = {}
        self._last = -math.inf
        self._started = clock()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        with self._lock:
            self._phases[name] = Phase(steps, parent is None, self._clock())

    def step(self, name: str, number: int) -> None:
        with self._lock:
            phase = self._phases.get(name)
            if phase:
                self._write(f"{name}, {number + 1} of {phase.steps}")

    def finish(self, name: str) -> None:
        """Always report the end of an outermost phase: there are few of those, and hundreds of inner ones."""
        with self._lock:
            phase = self._phases.pop(name, None)
            if phase:
                self._write(f"{name}, done in {self._clock() - phase.started:.0f} s", always=phase.is_outermost)

    @contextmanager
    def pulse(self, every_s: float = PULSE_S) -> Iterator[None]:
        """Report that the build is still running while TensorRT makes no calls."""
        ended = threading.Event()
        thread = threading.Thread(target=self._beat, args=(ended, every_s), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _beat(self, ended: threading.Event, every_s: float) -> None:
        while not ended.wait(every_s):
            with self._lock:
                inside = f" in {next(reversed(self._phases))}" if self._phases else ""
                if self._clock() - self._last >= every_s:
                    self._write(f"still building{inside}, {self._clock() - self._started:.0f} s so far")

    def _write(self, line: str, always: bool = False) -> None:
        now = self._clock()
        if always or now - self._last >= LINE_EVERY_S:
            self._last = now
            self._report(line)


def monitor_of(trt: Any, progress: Progress) -> Any:
    """An IProgressMonitor for `progress`; TensorRT's bindings require an explicit call of the base constructor."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress.step(phase_name, step)
            return True  # False would cancel the build

        def phase_finish(self, phase_name: str) -> None:
            progress.finish(phase_name)

    return Monitor()

"""Progress of a build is reported in few lines, with the ends of outermost phases and a sign of life in between."""

import threading

from serve_app.triton.plans.progress import LINE_EVERY_S, Progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_steps_are_reported_every_few_seconds_only():
    lines, clock = [], Clock()
    progress = Progress(lines.append, clock)
    progress.start("Timing graph nodes", None, 100)
    for step in range(100):
        progress.step("Timing graph nodes", step)
        clock.now += LINE_EVERY_S / 8
    assert len(lines) == 13
    assert lines[:2] == ["Timing graph nodes, 1 of 100", "Timing graph nodes, 9 of 100"]


def test_the_end_of_an_outermost_phase_is_always_reported_and_an_unknown_phase_never():
    lines, clock = [], Clock()
    progress = Progress(lines.append, clock)
    progress.start("Building engine", None, 2)
    for name in ("Tactics", "Costs"):
        progress.start(name, "Building engine", 1)
        clock.now += LINE_EVERY_S if name == "Tactics" else 0.1
        progress.finish(name)
    progress.step("unknown", 0)
    progress.finish("unknown")
    progress.finish("Building engine")
    assert lines == ["Tactics, done in 3 s", "Building engine, done in 3 s"]


def test_a_line_says_that_the_build_still_runs_only_when_nothing_else_was_reported():
    lines, reported, clock = [], threading.Event(), Clock()

    def report(line):
        lines.append(line)
        reported.set()

    progress = Progress(report, clock)
    progress.start("Building engine", None, 5)
    progress.step("Building engine", 0)
    reported.clear()
    with progress.pulse(0.01):
        assert not reported.wait(0.1)
        clock.now += LINE_EVERY_S
        assert reported.wait(10)
    assert lines == ["Building engine, 1 of 5", "still building in Building engine, 3 s so far"]

"""What is told of a build: few lines, the ends of what matters, and a sign of life in between."""

import threading
import time

from serve_app.triton.plans.progress import LINE_EVERY_S, Progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_steps_are_told_every_few_seconds_only():
    lines, clock = [], Clock()
    progress = Progress(lines.append, clock)
    progress.start("Timing graph nodes", None, 100)
    for step in range(100):
        progress.step("Timing graph nodes", step)
        clock.now += LINE_EVERY_S / 8
    assert len(lines) == 13
    assert lines[:2] == ["Timing graph nodes, 1 of 100", "Timing graph nodes, 9 of 100"]


def test_the_end_of_an_outermost_phase_is_always_told_and_of_an_inner_one_when_it_is_time():
    lines, clock = [], Clock()
    progress = Progress(lines.append, clock)
    progress.start("Building engine", None, 2)
    for name in ("Tactics", "Costs"):
        progress.start(name, "Building engine", 1)
        clock.now += LINE_EVERY_S if name == "Tactics" else 0.1
        progress.finish(name)
    progress.finish("Building engine")
    assert lines == ["Tactics, done in 3 s", "Building engine, done in 3 s"]


def test_a_name_that_never_began_is_passed_over():
    lines = []
    progress = Progress(lines.append)
    progress.step("unheard of", 0)
    progress.finish("unheard of")
    assert lines == []


def test_silence_is_broken_by_how_long_it_has_taken():
    lines, told = [], threading.Event()

    def report(line):
        lines.append(line)
        told.set()

    progress = Progress(report, Clock())
    progress.start("Building engine", None, 5)
    with progress.pulse(0.01):
        assert told.wait(10)
    assert lines == ["still building in Building engine, 0 s so far"]


def test_nothing_is_said_between_lines_that_come_anyhow():
    lines, clock = [], Clock()
    progress = Progress(lines.append, clock)
    progress.start("Building engine", None, 5)
    progress.step("Building engine", 0)
    with progress.pulse(0.01):
        time.sleep(0.1)
    assert lines == ["Building engine, 1 of 5"]

"""How hard queues press, and what a replica reports of Triton's between two readings."""

import math

import pytest

from serve_app.telemetry.pressure import (
    PENDING,
    QUEUE_MS,
    REJECTED_PER_S,
    SERVED_PER_S,
    STALLED,
    QueueWindow,
    language_pressure,
    queue_pressure,
)

NOTHING = dict.fromkeys((QUEUE_MS, SERVED_PER_S, REJECTED_PER_S, PENDING, STALLED), 0.0)


@pytest.mark.parametrize(
    ("numbers", "pressure"),
    [
        ({}, 0.0),
        ({"queue_ms": 15, "served_per_s": 10}, 1.5),
        ({"queue_ms": 15, "served_per_s": 10, "pending": 1}, 10.0),  # the next waits 100 ms
        ({"pending": 1}, math.inf),
        ({"rejected_per_s": 1}, math.inf),
        ({"queue_ms": 1, "served_per_s": 1000, "stalled": 1}, math.inf),  # another model is well
        ({"queue_ms": 1, "served_per_s": 1000, "rejected_per_s": 0.1}, 1.25),
        ({"queue_ms": 1, "served_per_s": 10, "rejected_per_s": 20}, 3.0),
        ({"queue_ms": 50, "served_per_s": 10, "rejected_per_s": 1}, 5.0),
    ],
)
def test_queue_time_what_waits_and_what_was_rejected_are_pressure(numbers, pressure):
    given = {"queue_ms": 0, "served_per_s": 0, "rejected_per_s": 0, "pending": 0, "stalled": 0} | numbers
    assert queue_pressure(10.0, **given) == pytest.approx(pressure)


@pytest.mark.parametrize(
    ("numbers", "pressure"),
    [
        ({"running": 4, "kv_cache_use": 0.4}, 0.5),
        ({"running": 4, "kv_cache_use": 1.0}, 1.25),
        ({"running": 4, "waiting": 6, "kv_cache_use": 0.4}, 3.0),
        ({"waiting": 1}, math.inf),
        ({"running": 4, "rejected": 0.1}, 1.25),
        ({}, 0.0),
    ],
)
def test_waiting_requests_and_the_kv_cache_are_pressure(numbers, pressure):
    given = {"waiting": 0, "running": 0, "kv_cache_use": 0, "rejected": 0} | numbers
    assert language_pressure(2.0, 0.8, **given) == pytest.approx(pressure)


def row(name, success, queue_ms, fail=0, version="1"):
    counts = {"success": (success, 0), "fail": (fail, 0), "queue": (success, int(queue_ms * 1e6))}
    stats = {stage: {"count": count, "ns": ns} for stage, (count, ns) in counts.items()}
    return {"name": name, "version": version, "inference_stats": stats}


@pytest.fixture
def window():
    """A window of two seconds from each reading to the next; the first found 100 requests done."""
    times = iter(range(0, 1000, 2))
    window = QueueWindow(lambda: float(next(times)))
    assert window.report([row("a", 100, 5000)], {}, 7) == NOTHING
    return window


def test_a_window_divides_the_queue_time_of_all_models_by_their_requests(window):
    report = window.report([row("a", 110, 5300), row("b", 30, 100)], {"a": 2, "b": 1}, 11)
    assert report == {QUEUE_MS: 10.0, SERVED_PER_S: 20.0, REJECTED_PER_S: 2.0, PENDING: 3.0, STALLED: 0.0}


def test_a_window_without_a_request_is_nothing(window):
    assert window.report([row("a", 100, 5000)], {}, 7) == NOTHING
    assert window.report([], {}, 7)[QUEUE_MS] == 0.0


@pytest.mark.parametrize("after", [row("a", 4, 20), row("a", 104, 20), row("a", 4, 6000)])
def test_a_model_that_was_loaded_again_counts_from_nothing(window, after):
    report = window.report([after], {}, 0)
    stats = after["inference_stats"]
    assert report[QUEUE_MS] == pytest.approx(stats["queue"]["ns"] / 1e6 / stats["success"]["count"])
    assert min(report.values()) >= 0


def test_a_version_is_counted_alone_and_an_unloaded_one_forgotten(window):
    assert window.report([row("a", 10, 100, version="2")], {}, 7)[QUEUE_MS] == 10.0
    assert window.report([row("a", 12, 140, version="2")], {}, 7)[QUEUE_MS] == 20.0


def test_a_model_that_waits_beside_others_at_work_is_stalled_and_one_that_fails_is_not(window):
    rows = [row("a", 110, 5000), row("b", 0, 0), row("c", 0, 0, fail=3)]
    assert window.report(rows, {"a": 1, "b": 5, "c": 2}, 7)[STALLED] == 5.0

"""The pressure of queues, and a replica's report of Triton's statistics between two readings."""

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


def test_queue_pressure_comes_from_queue_times_pending_and_rejected_requests():
    for numbers, pressure in (
        ({}, 0.0),
        ({"queue_ms": 15, "served_per_s": 10}, 1.5),
        ({"queue_ms": 15, "served_per_s": 10, "pending": 1}, 10.0),  # the next one waits 100 ms
        ({"pending": 1}, math.inf),
        ({"rejected_per_s": 1}, math.inf),
        ({"queue_ms": 1, "served_per_s": 1000, "stalled": 1}, math.inf),  # only one of the models is stalled
        ({"queue_ms": 1, "served_per_s": 1000, "rejected_per_s": 0.1}, 1.25),
        ({"queue_ms": 1, "served_per_s": 10, "rejected_per_s": 20}, 3.0),
        ({"queue_ms": 50, "served_per_s": 10, "rejected_per_s": 1}, 5.0),
    ):
        defaults = dict.fromkeys(("queue_ms", "served_per_s", "rejected_per_s", "pending", "stalled"), 0)
        assert queue_pressure(10.0, **defaults | numbers) == pytest.approx(pressure), numbers


def test_language_pressure_comes_from_waiting_requests_and_the_kv_cache():
    for numbers, pressure in (
        ({}, 0.0),
        ({"running": 4, "kv_cache_use": 0.4}, 0.5),
        ({"running": 4, "kv_cache_use": 1.0}, 1.25),
        ({"running": 4, "waiting": 6, "kv_cache_use": 0.4}, 3.0),
        ({"waiting": 1}, math.inf),
        ({"running": 4, "rejected": 0.1}, 1.25),
    ):
        defaults = dict.fromkeys(("waiting", "running", "kv_cache_use", "rejected"), 0)
        assert language_pressure(2.0, 0.8, **defaults | numbers) == pytest.approx(pressure), numbers


def row(name, success, queue_ms, fail=0, version="1"):
    counts = {"success": (success, 0), "fail": (fail, 0), "queue": (success, int(queue_ms * 1e6))}
    stats = {stage: {"count": count, "ns": ns} for stage, (count, ns) in counts.items()}
    return {"name": name, "version": version, "inference_stats": stats}


def start_window():
    """Two seconds between readings; the first one found 100 requests."""
    times = iter(range(0, 1000, 2))
    window = QueueWindow(lambda: float(next(times)))
    assert window.report([row("a", 100, 5000)], {}, 7) == NOTHING
    return window


def test_a_window_reports_the_changes_of_all_models():
    report = start_window().report([row("a", 110, 5300), row("b", 30, 100)], {"a": 2, "b": 1}, 11)
    assert report == {QUEUE_MS: 10.0, SERVED_PER_S: 20.0, REJECTED_PER_S: 2.0, PENDING: 3.0, STALLED: 0.0}
    window = start_window()
    assert window.report([row("a", 100, 5000)], {}, 7) == NOTHING
    assert window.report([], {}, 7) == NOTHING


def test_a_reloaded_model_and_a_new_version_count_from_zero():
    for after in (row("a", 4, 20), row("a", 104, 20), row("a", 4, 6000)):
        report = start_window().report([after], {}, 0)
        stats = after["inference_stats"]
        assert report[QUEUE_MS] == pytest.approx(stats["queue"]["ns"] / 1e6 / stats["success"]["count"]), after
        assert min(report.values()) >= 0
    window = start_window()
    assert window.report([row("a", 10, 100, version="2")], {}, 7)[QUEUE_MS] == 10.0
    assert window.report([row("a", 12, 140, version="2")], {}, 7)[QUEUE_MS] == 20.0


def test_a_model_is_stalled_if_its_requests_wait_and_none_completes_or_fails():
    rows = [row("a", 110, 5000), row("b", 0, 0), row("c", 0, 0, fail=3)]
    assert start_window().report(rows, {"a": 1, "b": 5, "c": 2}, 7)[STALLED] == 5.0

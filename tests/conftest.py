"""Fixtures that tests of several folders share; tests/tiers.py has the budget of each tier."""

import signal
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import settings
from ray.util import metrics

from serve_app.telemetry.metrics import RequestMetrics
from tests.tiers import require_within, tier_of

pytest_plugins = ["tests.language_model_server"]

settings.register_profile("slow", max_examples=1500)


def pytest_configure():
    """Under `nohup make test &` SIGINT is ignored, and every process that a test starts would inherit that."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before `-m` and `-k` take cases away
def pytest_collection_modifyitems(items):
    """Mark each case with its tier, and fail where a tier has more cases than its budget."""
    for item in items:
        item.add_marker(tier_of(item.path))
    require_within(item.path for item in items)


@dataclass
class Comparison:
    """How the detections of two detectors differ; boxes are in one unit."""

    expected: int
    found: int
    unmatched: int
    worst_iou: float
    worst_score: float


def iou(one, other):
    top_left, bottom_right = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    overlap = np.prod(np.clip(bottom_right - top_left, 0, None))
    union = np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - overlap
    return overlap / union if union else float(np.array_equal(one, other))


def compare_detections(expected, found):
    """Pair (box, score, class) rows: each expected one with the found one of its class that overlaps most."""
    free = list(range(len(found)))
    worst_iou, worst_score, unmatched = 1.0, 0.0, 0
    for box, score, label in expected:
        candidates = [(iou(np.asarray(box), np.asarray(found[i][0])), i) for i in free if found[i][2] == label]
        if not candidates or max(candidates)[0] < 0.5:
            unmatched += 1
            continue
        best, index = max(candidates)
        free.remove(index)
        worst_iou, worst_score = min(worst_iou, best), max(worst_score, abs(score - found[index][1]))
    return Comparison(len(expected), len(found), unmatched + len(free), worst_iou, worst_score)


@pytest.fixture(scope="session")
def compare():
    return compare_detections


@pytest.fixture
def recorded(monkeypatch):
    """What was given to Ray's pipeline since the start of the test: name, labels and value of each record."""
    records = []

    def record(metric, value, tags=None):
        assert set(metric._tag_keys) == set(tags or {}), f"{metric._name} has the labels {metric._tag_keys}"
        records.append((metric._name, dict(tags or {}), value))

    monkeypatch.setattr(metrics.Metric, "_record", record)
    end = RequestMetrics._end

    def end_and_record(ended, *request):
        end(ended, *request)
        ended.record()

    monkeypatch.setattr(RequestMetrics, "_end", end_and_record)
    return records

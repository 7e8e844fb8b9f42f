"""Detections against the reference: which boxes are a pair, and how far a pair may differ."""

from dataclasses import replace

import pytest

from serve_app.tools.bench.gpu_check.fidelity import FULL, REDUCED, Difference, Expected, limits_of
from serve_app.types import Detection, Thresholds


def box(x1=0.1, x2=0.5, label=1, confidence=0.9):
    return Detection(x1, 0.1, x2, 0.5, confidence, label, f"c{label}")


def compare(expected, found, limits=FULL, candidates=()):
    difference = Difference(limits, Thresholds(confidence=0.25, iou=0.7))
    difference.add(Expected(expected, candidates), found)
    return difference, list(difference.problems())


def test_equal_boxes_pass_and_wrong_boxes_fail():
    difference, problems = compare([box(), box(0.6, 0.9)], [box(0.6, 0.9), box()])
    assert problems == []
    assert (difference.boxes, difference.matched, difference.unmatched, difference.ties) == (2, 2, 0, 0)
    assert (difference.worst_iou, difference.worst_score) == (pytest.approx(1.0), 0.0)
    for found, problem in (
        ([], "none of 2 boxes matched"),
        ([box()], "1 boxes are unmatched"),
        ([box(), box(0.6, 0.9, label=2)], "2 boxes are unmatched"),
        ([box(), box(0.1, 0.2)], "2 boxes are unmatched"),
        ([box(), box(0.6, 0.9), box(0.6, 0.9, label=7)], "1 boxes are unmatched"),
        ([box(), box(0.6, 0.88)], "worst IoU 0.9333 is below 0.99"),
        ([box(), box(0.6, 0.9, confidence=0.88)], "worst score difference 0.0200 is above 0.01"),
    ):
        assert compare([box(), box(0.6, 0.9)], found)[1] == [problem]
    assert compare([], [])[1] == ["none of 0 boxes matched"]


def test_reduced_precision_has_wider_limits_and_a_margin_at_the_threshold():
    assert limits_of("f32") is FULL
    assert {limits_of(precision) for precision in ("f16", "bf16", "int8", "fp8")} == {REDUCED}
    near = box(0.1, 0.485, confidence=0.87)
    assert len(compare([box()], [near])[1]) == 2
    assert compare([box()], [near], REDUCED)[1] == []
    assert compare([box()], [box(0.1, 0.47)], REDUCED)[1] == ["worst IoU 0.9250 is below 0.95"]
    at_threshold = box(0.6, 0.9, confidence=0.27)
    assert compare([box(), at_threshold], [box()])[0].unmatched == 1
    assert compare([box(), at_threshold], [box()], REDUCED)[1] == []
    assert compare([box()], [box(), at_threshold], REDUCED)[1] == []
    assert compare([box()], [box(), replace(at_threshold, confidence=0.4)], REDUCED)[0].unmatched == 1


def test_either_of_two_nearly_equal_candidates_is_accepted_and_counted_as_a_tie():
    winner, rival = box(), box(0.1, 0.47, confidence=0.8999)
    difference, problems = compare([winner], [replace(rival, confidence=0.9002)], candidates=[winner, rival])
    assert (problems, difference.matched, difference.ties) == ([], 1, 1)
    assert difference.worst_iou == pytest.approx(1.0)
    for candidate, why in (
        (box(0.1, 0.47, confidence=0.85), "its score is much lower"),
        (box(0.1, 0.47, label=2, confidence=0.8999), "its class is another"),
        (box(0.1, 0.36, confidence=0.8999), "it overlaps too little to be suppressed"),
    ):
        found = replace(box(0.1, candidate.x2), confidence=0.9)
        difference, problems = compare([box()], [found], candidates=[box(), candidate])
        assert problems, why
        assert difference.ties == 0, why


def test_the_worst_pair_of_all_pictures_counts():
    difference = Difference(FULL, Thresholds())
    for found in (box(), box(0.1, 0.48), box(0.1, 0.49)):
        difference.add(Expected([box()], ()), [found])
    assert (difference.pictures, difference.boxes) == (3, 3)
    assert difference.worst_iou == pytest.approx(0.95)

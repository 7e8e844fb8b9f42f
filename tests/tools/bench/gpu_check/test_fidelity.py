"""Detections against the reference: which boxes are a pair, and how far a pair may be apart."""

from dataclasses import replace

import pytest

from serve_app.tools.bench.gpu_check.fidelity import FULL, REDUCED, Difference, Expected, limits_of
from serve_app.types import Detection, Thresholds


def box(x1=0.1, x2=0.5, label=1, confidence=0.9):
    return Detection(x1, 0.1, x2, 0.5, confidence, label, f"c{label}")


def compared(expected, found, limits=FULL, candidates=()):
    difference = Difference(limits, Thresholds(confidence=0.25, iou=0.7))
    difference.add(Expected(expected, candidates), found)
    return difference, list(difference.problems())


def test_the_same_boxes_pass():
    difference, problems = compared([box(), box(0.6, 0.9)], [box(0.6, 0.9), box()])
    assert problems == []
    assert (difference.boxes, difference.matched, difference.unmatched, difference.ties) == (2, 2, 0, 0)
    assert (difference.worst_iou, difference.worst_score) == (pytest.approx(1.0), 0.0)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([], "no box matched, of 2: nothing is proved"),
        ([box()], "1 boxes without a counterpart"),
        ([box(), box(0.6, 0.9, label=2)], "2 boxes without a counterpart"),
        ([box(), box(0.1, 0.2)], "2 boxes without a counterpart"),
        ([box(), box(0.6, 0.9), box(0.6, 0.9, label=7)], "1 boxes without a counterpart"),
        ([box(), box(0.6, 0.88)], "worst IoU 0.9333 is under 0.99"),
        ([box(), box(0.6, 0.9, confidence=0.88)], "worst score difference 0.0200 is over 0.01"),
    ],
)
def test_a_wrong_box_fails(found, told):
    assert compared([box(), box(0.6, 0.9)], found)[1] == [told]


def test_no_boxes_at_all_prove_nothing():
    assert compared([], [])[1] == ["no box matched, of 0: nothing is proved"]


def test_every_box_counts_at_full_precision_and_not_those_at_the_threshold_at_less():
    assert limits_of("f32") is FULL
    assert all(limits_of(precision) is REDUCED for precision in ("f16", "bf16", "int8", "fp8"))
    at_the_threshold = box(0.6, 0.9, confidence=0.27)
    assert compared([box(), at_the_threshold], [box()])[0].unmatched == 1
    assert compared([box(), at_the_threshold], [box()], REDUCED)[1] == []
    assert compared([box()], [box(), at_the_threshold], REDUCED)[1] == []
    assert compared([box(), replace(at_the_threshold, confidence=0.4)], [box()], REDUCED)[0].unmatched == 1


def test_less_precision_may_be_further_off():
    near = box(0.1, 0.485, confidence=0.87)
    assert len(compared([box()], [near])[1]) == 2
    assert compared([box()], [near], REDUCED)[1] == []
    assert compared([box()], [box(0.1, 0.47)], REDUCED)[1] == ["worst IoU 0.9250 is under 0.95"]


def test_of_candidates_as_good_as_equal_either_may_be_chosen_and_it_is_counted():
    winner, rival = box(), box(0.1, 0.47, confidence=0.8999)
    difference, problems = compared([winner], [replace(rival, confidence=0.9002)], candidates=[winner, rival])
    assert problems == []
    assert (difference.matched, difference.ties) == (1, 1)
    assert difference.worst_iou == pytest.approx(1.0)


@pytest.mark.parametrize(
    "candidate",
    [
        box(0.1, 0.47, confidence=0.85),  # by far not chosen
        box(0.1, 0.47, label=2, confidence=0.8999),
        box(0.1, 0.36, confidence=0.8999),  # overlaps too little to be suppressed
    ],
)
def test_what_was_no_rival_excuses_no_box(candidate):
    found = replace(box(0.1, candidate.x2), confidence=0.9)
    difference, problems = compared([box()], [found], candidates=[box(), candidate])
    assert difference.ties == 0
    assert problems


def test_the_worst_of_all_pictures_counts():
    difference = Difference(FULL, Thresholds())
    for found in (box(), box(0.1, 0.48), box(0.1, 0.49)):
        difference.add(Expected([box()], ()), [found])
    assert (difference.pictures, difference.boxes) == (3, 3)
    assert difference.worst_iou == pytest.approx(0.95)

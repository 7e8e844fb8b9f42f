"""What is said of measurements, and when two tracks see the same."""

import io
import json
from collections import Counter

import cv2
import pytest
from rich.console import Console

from serve_app.tools.bench.load import Outcome
from serve_app.tools.bench.report import as_json, draw, show
from serve_app.tools.bench.tracks import Row, differences, overlap


def row(track="B", clients=16, rate=None, count=100, share=0.2, **errors):
    outcome = Outcome([float(ms) for ms in range(1, count + 1)], Counter(errors), 10.0, share)
    return Row(track, f"/predict/{track}", "yolo_nano", clients, rate, outcome, Counter({1: 10, 4: 30}))


def shown(*rows):
    written = io.StringIO()
    show(rows, Console(file=written, width=160))
    return written.getvalue()


def test_the_table_has_a_line_for_each_measurement():
    text = shown(row(), row("D3", rate=50.0, count=0, Timeout=3))
    first, second = text.splitlines()[1:3]
    assert first.split() == ["B", "16", "clients", "10.0", "50.5", "90.1", "99.0", "3.2", "-"]
    assert second.split() == ["D3", "50/s", "0.0", "-", "-", "-", "3.2", "3", "×", "Timeout"]


def test_it_is_said_where_the_load_itself_may_be_the_limit():
    assert "may be the limit" not in shown(row(share=0.5))
    assert "track B, 16 clients: making the load took 93% of a core and may be the limit" in shown(row(share=0.93))


def test_the_json_has_the_machine_the_command_and_every_number():
    document = json.loads(as_json([row()], ["scripts/bench", "--track", "B"]))
    assert document["command"] == ["scripts/bench", "--track", "B"]
    assert document["machine"]["cores"] >= 1
    (one,) = document["measured"]
    assert (one["images"], one["images_per_s"], one["ms"]["p99"]) == (100, 10.0, 99.01)
    assert one["batches"] == {"1": 10, "4": 30}


@pytest.mark.parametrize("rows", [[row("A"), row("B")], [row("B", clients=n) for n in (1, 4, 16)]])
def test_a_chart_is_drawn_of_one_load_and_of_many(tmp_path, rows):
    draw(rows, tmp_path / "deep" / "chart.png")
    picture = cv2.imread(str(tmp_path / "deep" / "chart.png"))
    assert picture.shape[0] > 300
    assert len({tuple(color) for color in picture.reshape(-1, 3)[::50]}) > 5


def box(x1=0.1, x2=0.5, label=1, confidence=0.9):
    return {
        "x1": x1,
        "y1": 0.1,
        "x2": x2,
        "y2": 0.5,
        "class": label,
        "class_name": f"c{label}",
        "confidence": confidence,
    }


def test_equal_detections_differ_in_nothing():
    assert differences([box(), box(0.5, 0.9)], [box(confidence=0.905), box(0.5005, 0.9)]) == []


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([], "0 detections instead of 1"),
        ([box(label=2)], "c2 instead of c1"),
        ([box(x2=0.45)], "a c1 with IoU 0.875"),
        ([box(confidence=0.8)], "a c1 with IoU 1.000"),
    ],
)
def test_what_differs_is_said(found, told):
    assert differences([box()], found) == [told]


def test_boxes_that_do_not_meet_have_no_overlap():
    assert overlap(box(), box(0.6, 0.9)) == 0
    assert overlap(box(0.1, 0.1), box(0.1, 0.1)) == 0

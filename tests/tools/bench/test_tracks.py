"""Tables, JSON and charts of measured tracks, and the comparison of their detections."""

import io
import json
from collections import Counter

import cv2
import pytest
from rich.console import Console

from serve_app.errors import ServeAppError
from serve_app.tools.bench.detections import ROUNDED, differences, overlap, require_equal
from serve_app.tools.bench.load import Load, LoadResult
from serve_app.tools.bench.report import print_table, write_json
from serve_app.tools.bench.tracks import TrackResult, draw, show


def track_result(track="B", clients=16, rate=None, count=100, share=0.2, **errors):
    result = LoadResult([float(ms) for ms in range(1, count + 1)], Counter(errors), 10.0, share)
    load = Load(clients, rate_per_s=rate)
    return TrackResult(track, f"/predict/{track}", "yolo_nano", load, result, Counter({1: 10, 4: 30}))


def shown(*results):
    written = io.StringIO()
    show(results, Console(file=written, width=160))
    return written.getvalue()


def test_the_table_has_one_line_per_measurement_and_a_warning_if_the_generator_is_busy():
    text = shown(track_result(), track_result("D3", rate=50.0, count=0, Timeout=3))
    first, second = (line.split() for line in text.splitlines()[1:3])
    assert first == ["B", "16", "clients", "10.0", "50.5", "90.1", "99.0", "3.2", "-"]
    assert second == ["D3", "50/s", "0.0", "-", "-", "-", "3.2", "3", "×", "Timeout"]
    assert "may be the limit" not in text
    warning = "track B, 16 clients: the load generator took 93% of a core and may be the limit"
    assert warning in shown(track_result(share=0.93))


def test_cells_are_printed_as_they_are_and_columns_of_numbers_are_aligned_right():
    written = io.StringIO()
    print_table(Console(file=written, width=80), ("n", "text"), [(7, "[request id: 7] no [bold]GPU"), (10.25, None)])
    assert [line.rstrip() for line in written.getvalue().splitlines()[1:]] == [
        "   7  [request id: 7] no [bold]GPU", "10.2  -",
    ]  # fmt: skip


def test_the_json_has_the_machine_the_command_and_every_number(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/somewhere/bench", "--track", "B"])
    write_json(tmp_path / "deep" / "bench.json", "bench", measured=[track_result().as_dict()])
    document = json.loads((tmp_path / "deep" / "bench.json").read_text())
    assert document["command"] == ["scripts/bench", "--track", "B"]
    assert document["machine"]["cores"] >= 1
    (one,) = document["measured"]
    assert (one["images"], one["images_per_s"], one["ms"]["p99"]) == (100, 10.0, 99.01)
    assert one["batches"] == {"1": 10, "4": 30}


def test_a_chart_is_drawn_of_one_load_and_of_several(tmp_path):
    for results in (
        [track_result("A"), track_result("B")], [track_result("B", clients=n) for n in (1, 4, 16)],
    ):  # fmt: skip
        draw(results, tmp_path / "deep" / "chart.png")
        picture = cv2.imread(str(tmp_path / "deep" / "chart.png"))
        assert picture.shape[0] > 300
        assert len({tuple(color) for color in picture.reshape(-1, 3)[::50]}) > 5


def box(x1=0.1, x2=0.5, label=1, confidence=0.9):
    corners = {"x1": x1, "y1": 0.1, "x2": x2, "y2": 0.5}
    return corners | {"class": label, "class_name": f"c{label}", "confidence": confidence}


def test_detections_differ_by_number_class_box_and_score():
    assert differences([box(), box(0.5, 0.9)], [box(confidence=0.905), box(0.5005, 0.9)]) == []
    for found, problem in (
        ([], "0 detections instead of 1"),
        ([box(label=2)], "c2 instead of c1"),
        ([box(x2=0.45)], "a c1 with IoU 0.875"),
        ([box(confidence=0.8)], "a c1 of 0.800 instead of 0.900"),
    ):
        assert differences([box()], found) == [problem]
    assert differences([box()], [box(x2=0.49, confidence=0.86)], ROUNDED) == []
    require_equal([box()], [box()], "the gateway")
    with pytest.raises(ServeAppError, match=r"^the gateway gives other detections than the service: 0 detections inst"):
        require_equal([box()], [], "the gateway")
    assert overlap(box(), box(0.6, 0.9)) == 0
    assert overlap(box(0.1, 0.1), box(0.1, 0.1)) == 0

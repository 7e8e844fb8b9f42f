"""What a check says: every number was measured, and what was not is named with its reason."""

import io
import json

import cv2
import pytest
from rich.console import Console

from serve_app.tools.bench.gpu_check.parts import BASELINE, Part
from serve_app.tools.bench.gpu_check.report import as_json, draw, show_choices, show_findings, show_measured, title

PLANNED = [
    Part(BASELINE, "nano", "A", "alone"), Part(BASELINE, "nano", "A", "ladder"),
    Part("python-torch", "nano", "B", "alone"), Part("python-torch", "nano", "B", "together"),
    Part("python-torch", "nano", "B", "ladder"),
]  # fmt: skip


def shown(show, *arguments):
    written = io.StringIO()
    show(*arguments, Console(file=written, width=240))
    return written.getvalue()


def document_of(check):
    return json.loads(as_json(check, ["scripts/gpu_check"]))


@pytest.fixture
def whole(check_of, fidelity_row, rung_of):
    return check_of(
        planned=PLANNED,
        fidelity=[fidelity_row(BASELINE, "A"), fidelity_row(), fidelity_row(kind="together")],
        rungs=[rung_of(BASELINE, "A", images=20), rung_of(images=50)],
    )


def test_a_check_whose_parts_all_passed_has_passed(whole):
    assert list(whole.complaints()) == []
    document = document_of(whole)
    assert document["passed"] is True
    assert document["machine"]["cores"] >= 1
    assert [(row["engine"], row["track"], row["images_per_s"], row["ratio_to_a"]) for row in document["ladder"]] == [
        ("pytorch", "A", 2.0, 1.0), ("python-torch", "B", 5.0, 2.5),
    ]  # fmt: skip
    assert document["fidelity"][1]["worst_iou"] == 0.999
    assert document["fidelity"][1]["largest_batch"] == 8
    assert document["fidelity"][1]["limits"] == {"iou": 0.99, "score": 0.01, "margin": 0.0}


def test_tables_have_a_line_for_each_row(whole):
    text = shown(show_measured, whole)
    assert "python-torch  cuda    nano  B      together" in text
    assert "8 of 64" in text
    assert "2.50" in text
    assert "with neither HTTP nor Ray between" in text


def test_nothing_that_was_not_run_has_a_number(check_of, findings_without):
    check = check_of(findings_without("gpu", "torch.cuda"), baseline_reasons=("no gpu",))
    document = document_of(check)
    assert (document["fidelity"], document["ladder"], document["passed"]) == ([], [], False)
    left = {row["engine"]: row["reason"] for row in document["not_run"]}
    assert left == {
        "pytorch": "no gpu",
        "tensorrt": "left out by --engine",
        "onnxruntime": "left out by --engine",
        "python-torch": "no gpu; no torch.cuda",
        "python-onnxruntime": "left out by --engine",
    }
    text = shown(show_measured, check)
    assert "images/s" not in text
    assert "not run: python-torch: no gpu; no torch.cuda" in text
    assert next(check.complaints()).startswith("nothing was measured: no gpu")


def test_without_track_a_there_is_no_ratio(whole):
    whole.rungs = whole.rungs[1:]
    assert document_of(whole)["ladder"][0]["ratio_to_a"] is None
    assert "÷ A" in shown(show_measured, whole)


def test_parts_that_an_interruption_left_are_named_one_by_one_and_whole_engines_once(whole):
    whole.interrupted = True
    whole.rungs = whole.rungs[:1]
    whole.fidelity = whole.fidelity[:2]
    left = [row for row in document_of(whole)["not_run"] if row["reason"] == "interrupted"]
    assert [(row["engine"], row["track"], row["kind"]) for row in left] == [
        ("python-torch", "B", "together"), ("python-torch", "B", "ladder"),
    ]  # fmt: skip
    whole.fidelity = whole.fidelity[:1]
    left = [row for row in document_of(whole)["not_run"] if row["reason"] == "interrupted"]
    assert [(row["engine"], row["track"]) for row in left] == [("python-torch", None)]
    assert next(whole.complaints()) == "interrupted"


def test_what_an_engine_failed_for_is_the_reason_for_its_parts(whole):
    whole.rungs, whole.failures = whole.rungs[:1], {"python-torch": "its process was ended by SIGSEGV"}
    left = document_of(whole)["not_run"][-1]
    assert (left["engine"], left["kind"], left["reason"]) == (
        "python-torch", "ladder", "its process was ended by SIGSEGV",
    )  # fmt: skip
    assert list(whole.complaints()) == ["python-torch: its process was ended by SIGSEGV"]


def test_a_report_from_the_middle_has_not_passed(whole):
    whole.rungs = []
    assert list(whole.complaints()) == ["not reached: pytorch, nano, track A, ladder"]
    assert document_of(whole)["not_run"][-1]["reason"] == "not reached"


def test_a_wrong_box_and_an_unanswered_client_are_complaints(whole, fidelity_row, rung_of):
    whole.fidelity[1] = fidelity_row(problems=("worst IoU 0.9333 is under 0.99",))
    whole.rungs = [rung_of(BASELINE, "A", refused=3), rung_of(images=0)]
    assert list(whole.complaints()) == [
        "python-torch, nano, track B, fidelity alone: worst IoU 0.9333 is under 0.99",
        "pytorch, nano, track A, ladder: 3 × refused",
        "python-torch, nano, track B, ladder: nothing was answered in time",
    ]


def test_an_engine_that_was_asked_for_by_name_must_run(check_of, findings_without, whole):
    check = check_of(findings_without("plans"), named=("tensorrt", "python-torch"))
    check.fidelity, check.rungs = whole.fidelity, whole.rungs
    assert list(check.complaints()) == ["tensorrt can't run here: no plans"]


def test_without_the_reader_track_d_is_named(check_of, findings_without):
    check = check_of(findings_without("dali.cuda"))
    left = [row for row in document_of(check)["not_run"] if row["engine"] == "python-torch"]
    assert [(row["track"], row["reason"]) for row in left] == [("D1, D2, D3", "no dali.cuda")]
    assert "python-torch        can run    without track D: no dali.cuda" in shown(show_choices, check.choices)


def test_the_title_says_what_the_numbers_are_from(check_of, findings_without):
    assert title(check_of()) == "GPU check on some gpu"
    assert title(check_of(findings_without("gpu"))) == "GPU check without a GPU"
    assert "device cpu, which says nothing of a GPU" in title(check_of(device="cpu"))


def test_reasons_with_brackets_are_told_whole(findings_without):
    (finding, *_) = findings_without("gpu")
    object.__setattr__(finding, "detail", "[request id: 7] no [bold]GPU")
    assert "[request id: 7] no [bold]GPU" in shown(show_findings, [finding])


def test_a_chart_is_drawn(tmp_path, whole):
    draw(whole, tmp_path / "deep" / "chart.png")
    assert cv2.imread(str(tmp_path / "deep" / "chart.png")).shape[1] > 600

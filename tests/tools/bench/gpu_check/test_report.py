"""The report of a check: every number was measured, and whatever was not has a reason."""

import io
import json

import cv2
import pytest
from rich.console import Console

from serve_app.tools.bench.gpu_check.jobs import BASELINE, Part
from serve_app.tools.bench.gpu_check.report import draw, show_engines, show_findings, show_results, title, write

PLANNED = [
    Part(BASELINE, "nano", "A", "single"), Part(BASELINE, "nano", "A", "ladder"),
    Part("python-torch", "nano", "B", "single"), Part("python-torch", "nano", "B", "concurrent"),
    Part("python-torch", "nano", "B", "ladder"),
]  # fmt: skip


def shown(show, *arguments):
    written = io.StringIO()
    show(*arguments, Console(file=written, width=240))
    return written.getvalue()


@pytest.fixture
def document_of(tmp_path):
    def read(check):
        write(check, tmp_path / "check.json")
        return json.loads((tmp_path / "check.json").read_text())

    return read


@pytest.fixture
def complete(made):
    return made.check(
        planned=PLANNED,
        fidelity=[made.fidelity(BASELINE, "A"), made.fidelity(), made.fidelity(kind="concurrent")],
        ladder=[made.speed(BASELINE, "A", images=20), made.speed(images=50)],
    )


def test_a_check_whose_parts_all_passed_has_passed(complete, document_of, tmp_path):
    assert list(complete.problems()) == []
    document = document_of(complete)
    assert (document["passed"], document["machine"]["cores"] >= 1) == (True, True)
    assert [(row["engine"], row["track"], row["images_per_s"], row["ratio_to_a"]) for row in document["ladder"]] == [
        ("pytorch", "A", 2.0, 1.0), ("python-torch", "B", 5.0, 2.5),
    ]  # fmt: skip
    row = document["fidelity"][1]
    assert (row["worst_iou"], row["largest_batch"], row["passed"]) == (0.999, 8, True)
    assert row["limits"] == {"iou": 0.99, "score": 0.01, "margin": 0.0}
    text = shown(show_results, complete)
    assert "python-torch  cuda    nano  B      concurrent" in text
    assert "8 of 64" in text
    assert "2.50" in text
    assert "without HTTP and Ray" in text
    draw(complete, tmp_path / "deep" / "chart.png")
    assert cv2.imread(str(tmp_path / "deep" / "chart.png")).shape[1] > 600


def test_what_was_not_run_has_a_reason_and_no_number(made, document_of):
    check = made.check(made.findings("gpu", "torch.cuda"), baseline_reasons=("no gpu",))
    document = document_of(check)
    assert (document["fidelity"], document["ladder"], document["passed"]) == ([], [], False)
    assert {row["engine"]: row["reason"] for row in document["not_run"]} == {
        "pytorch": "no gpu",
        "tensorrt": "left out by --engine",
        "onnxruntime": "left out by --engine",
        "python-torch": "no gpu; no torch.cuda",
        "python-onnxruntime": "left out by --engine",
    }
    text = shown(show_results, check)
    assert "images/s" not in text
    assert "not run: python-torch: no gpu; no torch.cuda" in text
    message = "nothing was measured: no gpu; --device cpu tries the check on the processor"
    assert next(check.problems()) == message


def test_without_track_a_there_is_no_ratio(complete, document_of):
    complete.ladder = complete.ladder[1:]
    assert document_of(complete)["ladder"][0]["ratio_to_a"] is None
    assert "÷ A" in shown(show_results, complete)


def test_parts_that_were_not_reached_are_listed_singly_and_whole_engines_once(complete, document_of):
    def left(reason):
        rows = document_of(complete)["not_run"]
        return [(row["engine"], row["track"], row["kind"]) for row in rows if row["reason"] == reason]

    complete.interrupted, complete.ladder = True, complete.ladder[:1]
    complete.fidelity = complete.fidelity[:2]
    assert left("interrupted") == [("python-torch", "B", "concurrent"), ("python-torch", "B", "ladder")]
    complete.fidelity = complete.fidelity[:1]
    assert left("interrupted") == [("python-torch", None, None)]
    assert next(complete.problems()) == "interrupted"
    complete.interrupted, complete.failures = False, {"python-torch": "its process was ended by SIGSEGV"}
    assert left("its process was ended by SIGSEGV") == [("python-torch", None, None)]
    assert list(complete.problems()) == ["python-torch: its process was ended by SIGSEGV"]
    complete.failures, complete.ladder = {}, []
    assert "not reached: pytorch, nano, track A, ladder" in list(complete.problems())
    assert ("pytorch", "A", "ladder") in left("not reached")


def test_problems_of_parts_and_requested_engines_that_cannot_run_are_problems_of_the_check(complete, made):
    complete.fidelity[1] = made.fidelity(problems=("worst IoU 0.9333 is below 0.99",))
    complete.ladder = [made.speed(BASELINE, "A", problems=("3 × refused",)), made.speed()]
    assert list(complete.problems()) == [
        "python-torch, nano, track B, fidelity single: worst IoU 0.9333 is below 0.99",
        "pytorch, nano, track A, ladder: 3 × refused",
    ]
    check = made.check(made.findings("plans"), requested=("tensorrt", "python-torch"))
    check.fidelity = complete.fidelity[2:]
    assert list(check.problems()) == ["tensorrt can't run here: no plans"]


def test_without_dali_track_d_is_listed(made, document_of):
    check = made.check(made.findings("dali.cuda"))
    left = [row for row in document_of(check)["not_run"] if row["engine"] == "python-torch"]
    assert [(row["track"], row["reason"]) for row in left] == [("D1, D2, D3", "no dali.cuda")]
    assert "python-torch        can run    without track D: no dali.cuda" in shown(show_engines, check.choices)


def test_the_title_names_the_gpu_or_says_that_there_is_none(made):
    assert title(made.check()) == "GPU check on some gpu"
    assert title(made.check(made.findings("gpu"))) == "GPU check without a GPU"
    assert title(made.check(device="cpu")) == "GPU check on device cpu: its numbers do not apply to a GPU"
    assert "GPU in use" in shown(show_findings, made.findings()[:1])

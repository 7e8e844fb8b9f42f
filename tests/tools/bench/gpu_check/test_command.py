"""The command itself, in processes of its own: without a GPU, on the processor, interrupted, and on a GPU."""

import io
import json
import signal
import subprocess
import sys

import cv2
import psutil
import pytest
import yaml
from rich.console import Console

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.bench.gpu_check.cli import progress_of
from serve_app.tools.bench.gpu_check.parts import Said
from serve_app.triton.plans import find_gpu

SCRIPT = str(PROJECT_ROOT / "scripts" / "gpu_check")
TRACKS = ["B", "C", "D1", "D2", "D3"]


@pytest.fixture
def config(tmp_path):
    """The demo weights in f32."""
    detection = {
        "engine": "tensorrt",
        "model_repository": "model_repository/gpu",
        "models": {"nano": {"weights": "demo"}},
    }
    application = {"name": "a", "import_path": "serve_app.app:build", "args": {"detection": detection}}
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump({"applications": [application]}))
    return path


def command(config, output, *options):
    return [sys.executable, SCRIPT, "--config", str(config), "--output", str(output), *options]


def run(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True)


def report_in(folder):
    return json.loads((folder / "gpu_check.json").read_text())


@pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")
def test_without_a_gpu_it_measures_nothing_and_reports_what_it_found(config, tmp_path):
    (tmp_path / "gpu_check.png").touch()
    ended = run(config, tmp_path)
    assert ended.returncode == 1, ended.stderr
    last = ended.stdout.splitlines()[-1]
    assert last.startswith("not passed: nothing was measured: no NVIDIA GPU; --device cpu tries the flow")
    report = report_in(tmp_path)
    assert (report["fidelity"], report["ladder"], report["passed"]) == ([], [], False)
    assert {row["engine"] for row in report["not_run"]} == {
        "pytorch", "tensorrt", "onnxruntime", "python-torch", "python-onnxruntime",
    }  # fmt: skip
    assert all("no NVIDIA GPU" in row["reason"] for row in report["not_run"])
    assert any(row["key"] == "torch" and row["found"] for row in report["findings"])
    assert not (tmp_path / "gpu_check.png").exists(), "a chart of another run would look like this one's"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--engine", "openvino"], "error: argument --engine: invalid choice: 'openvino'"),
        (["--clients", "0"], "error: argument --clients: 0 is not at least 1"),
    ],
)
def test_wrong_usage_is_told_in_one_line(config, tmp_path, options, told):
    ended = run(config, tmp_path, *options)
    assert ended.returncode == 2
    assert ended.stderr.startswith(told)
    assert len(ended.stderr.splitlines()) == 1


def test_a_configuration_that_is_not_there_is_told_in_one_line(tmp_path):
    ended = run(tmp_path / "none.yaml", tmp_path)
    assert (ended.returncode, ended.stderr) == (1, f"error: {tmp_path / 'none.yaml'}: No such file or directory\n")


@pytest.mark.timeout(400)
def test_on_the_processor_the_whole_flow_gives_ultralytics_detections_and_a_ladder(config, tmp_path):
    options = ("--engine", "python-onnxruntime", "--duration", "2", "--warmup", "0.2", "--clients", "8")
    ended = run(config, tmp_path, "--device", "cpu", *options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = report_in(tmp_path)
    assert report["passed"] is True
    assert "device cpu" in report["title"]
    assert report["weights"] == {"nano": "demo-yolo11n.pt"}
    rows = report["fidelity"]
    assert [(row["track"], row["kind"]) for row in rows] == [
        ("A", "alone"), *((track, kind) for track in TRACKS for kind in ("alone", "together")),
    ]  # fmt: skip
    assert all(row["passed"] and row["boxes"] > 60 and row["unmatched"] == 0 for row in rows)
    assert all((row["device"], row["precision"]) == ("cpu", "f32") for row in rows)
    assert all(row["largest_batch"] == 1 for row in rows if row["kind"] == "alone" and row["track"] != "A")
    assert all(1 < row["largest_batch"] <= row["max_batch"] for row in rows if row["kind"] == "together")
    assert [row["track"] for row in report["ladder"]] == ["A", *TRACKS]
    assert all(row["images"] > 0 and row["device"] == "cpu" and not row["problems"] for row in report["ladder"])
    assert {row["reason"] for row in report["not_run"]} == {"left out by --engine"}
    assert cv2.imread(str(tmp_path / "gpu_check.png")).shape[1] > 600
    assert ended.stdout.splitlines()[-1] == "passed"


@pytest.mark.timeout(300)
def test_ctrl_c_ends_it_with_what_was_measured_until_then(config, tmp_path):
    options = ("--engine", "python-onnxruntime", "--duration", "100", "--clients", "2", "--device", "cpu")
    with subprocess.Popen(command(config, tmp_path, *options), stdout=subprocess.PIPE, text=True) as process:
        assert any("track A, ladder" in line for line in process.stdout)
        (child,) = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(60) == 130
    assert not psutil.pid_exists(child.pid)
    assert "not passed: interrupted" in rest
    report = report_in(tmp_path)
    assert [(row["engine"], row["track"]) for row in report["fidelity"]] == [("pytorch", "A")]
    assert report["ladder"] == []
    left = [(row["engine"], row["kind"]) for row in report["not_run"] if row["reason"] == "interrupted"]
    assert left == [("pytorch", "ladder"), ("python-onnxruntime", None)]


@pytest.mark.gpu
@pytest.mark.skipif(find_gpu() is None, reason="no NVIDIA GPU here")
@pytest.mark.timeout(3000)
def test_on_a_gpu_every_engine_that_can_run_gives_ultralytics_detections(config, tmp_path):
    ended = run(config, tmp_path, "--duration", "2")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert all(row["device"] == "cuda" for row in report_in(tmp_path)["ladder"])


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_goes_on_is_on_the_bar_of_a_terminal_and_in_lines_elsewhere(is_terminal, check_of, fidelity_row, rung_of):
    written = io.StringIO()
    console = Console(file=written, force_terminal=is_terminal, width=160)
    row, rung = fidelity_row(), rung_of()
    check = check_of(planned=[row.part, rung.part])
    with progress_of(check, console) as hear:
        for event in (Said("[1/6] yolo_nano: raw head"), row, Said("track B, ladder"), rung):
            hear(event)
    assert (check.fidelity, check.rungs) == ([row], [rung])
    text = written.getvalue()
    if is_terminal:
        assert "2/2" in text
    else:
        assert text == "[1/6] yolo_nano: raw head\ntrack B, ladder\n"

"""`scripts/gpu_check`: without a GPU, on the processor, interrupted, and on a GPU."""

import json
import signal
import subprocess
import sys

import cv2
import psutil
import pytest
import yaml

from serve_app.detection.tracks import tracks_of
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.bench.gpu_check import cli, jobs
from serve_app.tools.bench.gpu_check.jobs import BASELINE, Message, Reference
from serve_app.triton.plans import find_gpu

TIERS = ("streaming", "balanced", "batch")
TRACKS = ["B", "C", "D1", "D2", "D3"]
ON_CPU = ("--device", "cpu", "--engine", "python-onnxruntime")


@pytest.fixture
def config(tmp_path):
    """The demo weights in f32, and one instance of each engine."""
    models = {"nano": {"weights": "demo"}}
    detection = {"engine": "tensorrt", "model_repository": "model_repository/gpu", "models": models}
    instances = {f"yolo_nano{name}": 1 for name in ("", "_end2end", *(f"_engine_{tier}" for tier in TIERS))}
    arguments = {"detection": detection, "triton": [{"name": "vision", "instances": instances}]}
    application = {"name": "a", "import_path": "serve_app.app:build", "args": arguments}
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump({"applications": [application]}))
    return path


@pytest.fixture
def check(config, tmp_path, monkeypatch, capsys, made):
    """Runs the command with made-up findings of a machine without a GPU; returns status, output and report."""
    monkeypatch.setattr(cli, "find_all", lambda *_: made.findings("gpu", "torch.cuda"))

    def run(*options):
        before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            with pytest.raises(SystemExit) as ended:
                cli.main("Check.", ["--config", str(config), "--output", str(tmp_path / "out"), *options])
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
        report = tmp_path / "out" / "gpu_check.json"
        return ended.value.code, capsys.readouterr(), json.loads(report.read_text()) if report.exists() else None

    return run


def test_without_a_gpu_it_measures_nothing_and_reports_its_findings(check, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "gpu_check.png").touch()
    status, printed, report = check()
    assert status == 1, printed.err
    message = "not passed: nothing was measured: no gpu; --device cpu tries the check on the processor"
    assert printed.out.splitlines()[-1] == message
    assert (report["fidelity"], report["ladder"], report["passed"]) == ([], [], False)
    assert [row["engine"] for row in report["not_run"]] == ["pytorch", *cli.ENGINES]
    assert all("no gpu" in row["reason"] for row in report["not_run"])
    assert any(row["key"] == "torch" and row["found"] for row in report["findings"])
    assert not (tmp_path / "out" / "gpu_check.png").exists(), "the chart of an earlier run"


def test_wrong_usage_is_one_line(check, tmp_path):
    missing = tmp_path / "none.yaml"
    for options, status, message in (
        (["--engine", "openvino"], 2, "error: argument --engine: invalid choice: 'openvino'"),
        (["--clients", "0"], 2, "error: argument --clients: 0 is not at least 1"),
        (["--pictures", str(missing)], 2, f"error: {missing}: there is no such file or folder"),
        (["--config", str(missing)], 1, f"error: {missing}: No such file or directory"),
    ):
        ended, printed, report = check(*options)
        assert (ended, report, len(printed.err.splitlines())) == (status, None, 1)
        assert printed.err.startswith(message)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("tracks", [["B", "D3"], pytest.param(TRACKS, marks=pytest.mark.slow)], ids=["two", "all"])
def test_on_the_processor_tracks_give_the_detections_of_ultralytics_and_a_speed(check, tmp_path, monkeypatch, tracks):
    monkeypatch.setattr(
        jobs, "tracks_of", lambda *sizes: [one for one in tracks_of(*sizes) if one.design.name in ("A", *tracks)]
    )
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, picture in enumerate(cli.default_pictures()[:2]):
        (pictures / f"{number}.jpg").write_bytes(picture)
    options = ("--duration", "0.2", "--warmup", "0", "--clients", "2", "--pictures", str(pictures))
    status, printed, report = check(*ON_CPU, *options)
    assert status == 0, printed.out + printed.err
    assert report["passed"] is True
    assert report["weights"] == {"nano": "demo-yolo11n.pt"}
    rows = report["fidelity"]
    assert [(row["track"], row["kind"]) for row in rows] == [
        ("A", "single"), *((track, kind) for track in tracks for kind in ("single", "concurrent")),
    ]  # fmt: skip
    assert all(row["passed"] and row["boxes"] > 4 and row["unmatched"] == 0 for row in rows)
    assert all((row["device"], row["precision"]) == ("cpu", "f32") for row in rows)
    assert all(row["largest_batch"] == 1 for row in rows if row["kind"] == "single" and row["track"] != "A")
    assert all(1 < row["largest_batch"] <= row["max_batch"] for row in rows if row["kind"] == "concurrent")
    assert [row["track"] for row in report["ladder"]] == ["A", *tracks]
    assert all(row["images"] > 0 and row["device"] == "cpu" and not row["problems"] for row in report["ladder"])
    assert {row["reason"] for row in report["not_run"]} == {"left out by --engine"}
    assert cv2.imread(str(tmp_path / "out" / "gpu_check.png")).shape[1] > 600
    assert "python-onnxruntime, nano, track B, ladder" in printed.out
    assert printed.out.splitlines()[-1] == "passed"


def test_an_interrupted_check_reports_what_was_measured(check, monkeypatch, made):
    def interrupted(task, job, *arguments, on_event, log, environment):
        on_event(Message("track A, ladder"))
        on_event(Reference("nano", ()))
        on_event(made.fidelity(BASELINE, "A"))
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_in_process", interrupted)
    status, printed, report = check(*ON_CPU)
    assert status == 130
    assert "track A, ladder\n" in printed.out
    assert "not passed: interrupted" in printed.out
    assert [(row["engine"], row["track"]) for row in report["fidelity"]] == [("pytorch", "A")]
    left = [(row["engine"], row["kind"]) for row in report["not_run"] if row["reason"] == "interrupted"]
    assert left == [("pytorch", "ladder"), ("python-onnxruntime", None)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ctrl_c_ends_the_check_and_its_process(config, tmp_path):
    command = [
        sys.executable,
        PROJECT_ROOT / "scripts" / "gpu_check",
        "--config",
        config,
        "--output",
        tmp_path,
        *ON_CPU,
    ]
    with subprocess.Popen([*command, "--duration", "100"], stdout=subprocess.PIPE, text=True) as process:
        assert any("track A, ladder" in line for line in process.stdout)
        (child,) = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(60) == 130
    assert not psutil.pid_exists(child.pid)
    assert "not passed: interrupted" in rest


@pytest.mark.gpu
@pytest.mark.skipif(find_gpu() is None, reason="no NVIDIA GPU here")
@pytest.mark.timeout(3000)
def test_on_a_gpu_every_engine_that_can_run_gives_the_detections_of_ultralytics(config, tmp_path):
    command = [sys.executable, PROJECT_ROOT / "scripts" / "gpu_check", "--config", config, "--output", tmp_path]
    ended = subprocess.run([*command, "--duration", "2"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads((tmp_path / "gpu_check.json").read_text())
    assert all(row["device"] == "cuda" for row in report["ladder"])

"""`scripts/sweep` on real Triton servers: what it tries, what it writes, and what it puts in place."""

import json
import subprocess
import sys

import cv2
import pytest

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.bench.sweep.cli import main
from serve_app.tools.bench.sweep.search import Setting
from serve_app.triton.repository import ModelRepository

SLOW = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.wait(request) for request in requests]

    def wait(self, request):
        time.sleep(0.05)
        given = pb_utils.get_input_tensor_by_name(request, "IN")
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", given.as_numpy())])
"""
CONFIG = """
backend: "python" max_batch_size: 1
input [ { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
dynamic_batching { }
"""


def sweep(*arguments):
    short = ("--duration", "0.5", "--warmup", "0.1", "--rounds", "1")
    command = [sys.executable, PROJECT_ROOT / "scripts" / "sweep", *arguments, *short]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=110)


def test_a_second_instance_of_a_model_that_waits_is_found_and_applied(tmp_path):
    folder = tmp_path / "models" / "slow"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text(SLOW)
    (folder / "config.pbtxt").write_text(CONFIG)
    where = ("--repository", tmp_path / "models", "--output", tmp_path / "out")
    ran = sweep("slow", *where, "--clients", 4, "--batches", 1, "--delays", 0, "--shape", "IN:3", "--apply")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "another config is better: 2 instances, 1 max batch, 0 µs delay gives " in ran.stdout
    applied = ModelRepository(tmp_path / "models", ["*"], None).all["slow"]
    assert Setting.of(applied.config) == Setting(2, 1, 0)
    assert (applied.folder / "config.pbtxt").read_text() == (tmp_path / "out" / "config.pbtxt").read_text()
    document = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [one["setting"]["instances"] for one in document["tried"]] == [1, 2]
    assert document["ratio"] > 1
    assert cv2.imread(str(tmp_path / "out" / "sweep.png")) is not None


def test_an_engine_is_swept_through_its_ensemble_and_the_frontier_is_shown(tmp_path):
    ran = sweep(
        "yolo_nano_engine_batch", "--through", "yolo_nano_gpu_e2e_batch", "--clients", "1,4", "--output", tmp_path,
        "--instances", "1", "--batches", "128", "--delays", "0", "--threads", "0", "--streams", "0,1",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    document = json.loads((tmp_path / "sweep.json").read_text())
    tried = {(one["setting"]["delay_us"], one["setting"]["streams"]) for one in document["tried"]}
    assert {(5000, 0), (0, 0)} < tried
    assert all(one["rate"] > 0 and not one["errors"] for one in document["tried"])
    assert "frontier: no other point is better in both rate and p99" in ran.stdout


def test_what_can_not_be_swept_is_one_line(capsys):
    for arguments, message in (
        (("yolo_nano_gpu_e2e",), "error: yolo_nano_gpu_e2e is an ensemble; sweep one of its models, "),
        (("nothing",), "error: no model 'nothing' in "),
        (("yolo_nano", "--threads", "-1"), "error: argument --threads: -1 is not at least 0"),
    ):
        with pytest.raises(SystemExit) as ended:
            main("", [*arguments])
        said = capsys.readouterr().err
        assert (ended.value.code, len(said.splitlines())) == (2, 1), said
        assert said.startswith(message)


def test_a_bound_that_nothing_keeps_is_said(tmp_path):
    arguments = ("yolo_nano_end2end", "--clients", "1", "--max-p99-ms", "0.5", "--instances", "1", "--batches", "64")
    ran = sweep(*arguments, "--delays", "0", "--threads", "0", "--streams", "0", "--output", tmp_path)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "no setting is within the bounds; the frontier shows what is possible" in ran.stdout

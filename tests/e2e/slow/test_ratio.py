"""`scripts/bench ratio` starts the service and its baselines, checks that they find the same, and gives ratios."""

import json
import subprocess
import sys

import cv2
import pytest

from serve_app.settings import PROJECT_ROOT

RATIO = (sys.executable, PROJECT_ROOT / "scripts" / "bench", "ratio")
SHORT = ("--rounds", "2", "--duration", "1", "--warmup", "0.5", "--clients", "4")


@pytest.mark.usefixtures("start_service")  # it needs the ports, so it comes before the tests' own service
def test_each_baseline_is_started_measured_in_turn_and_ended(tmp_path, starts):
    starts.count("slow")
    starts.count("slow")  # one for pictures, one for language models
    files = ("--json", tmp_path / "ratio.json", "--chart", tmp_path / "ratio.png")
    command = [*RATIO, "P1", "P2", "P3", "P4", "P5", *SHORT, *files]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=1000)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    compared = {
        (row["name"], row["number"]): row for row in json.loads((tmp_path / "ratio.json").read_text())["compared"]
    }
    assert list(compared) == [
        ("P1", "images/s"), ("P2", "images/s"), ("P3", "images/s"), ("P3", "p99 ms"), ("P4", "requests/s"),
        ("P5", "tokens/s"), ("P5", "first token ms"),
    ]  # fmt: skip
    for row in compared.values():
        assert len(row["ours"]) == len(row["theirs"]) == len(row["ratios"]) == 2
        assert min(row["ours"] + row["theirs"]) > 0
        assert row["ratios"][0] == pytest.approx(row["ours"][0] / row["theirs"][0], abs=1e-3)
    assert compared["P2", "images/s"]["median"] > 1, "no track is faster than PyTorch's"
    for name in ("P1", "P2", "P3", "P4", "P5"):
        assert f"\n{name}  " in ran.stdout, ran.stdout
    assert cv2.imread(str(tmp_path / "ratio.png")) is not None
    assert "round 2 of 2: vllm serve" in ran.stdout

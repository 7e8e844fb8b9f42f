"""`scripts/bench` on the real service: the ladder, sweeps, open loops, and what it says when something is wrong."""

import json
import re
import subprocess
import sys

import cv2
import pytest

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.bench.cli import main


def bench(*arguments):
    command = [sys.executable, PROJECT_ROOT / "scripts" / "bench", "--duration", "1", "--warmup", "0.2"]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=110)


def test_the_ladder_is_measured_track_by_track_with_equal_detections(service, tmp_path):
    files = ("--json", tmp_path / "bench.json", "--chart", tmp_path / "bench.png")
    ran = bench("--url", service.url, "--track", "all", "--clients", 8, *files)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "6 detections, equal on all 6 tracks" in ran.stdout
    document = json.loads((tmp_path / "bench.json").read_text())
    assert [row["track"] for row in document["measured"]] == ["A", "B", "C", "D1", "D2", "D3"]
    for row in document["measured"]:
        assert row["images"] > 3
        assert row["errors"] == {}
        assert row["ms"]["p50"] <= row["ms"]["p90"] <= row["ms"]["p99"]
        assert re.search(rf"^{row['track']} +8 clients +[\d.]+ ", ran.stdout, re.MULTILINE)
    by_track = {row["track"]: row for row in document["measured"]}
    assert by_track["A"]["batches"] == {}, "PyTorch's baseline isn't in Triton's statistics"
    assert max(int(size) for size in by_track["D3"]["batches"]) > 1
    assert document["machine"]["cores"] >= 1
    assert cv2.imread(str(tmp_path / "bench.png")) is not None


def test_clients_are_swept_and_an_open_loop_keeps_its_rate(service, tmp_path):
    ran = bench("--url", service.url, "--track", "D_batch,B", "--clients", "1,4", "--json", tmp_path / "swept.json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    rows = json.loads((tmp_path / "swept.json").read_text())["measured"]
    assert [(row["track"], row["clients"]) for row in rows] == [("B", 1), ("D3", 1), ("B", 4), ("D3", 4)]
    ran = bench(
        "--url", service.url, "--track", "B", "--rate", "5", "--duration", "3", "--json", tmp_path / "open.json"
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (row,) = json.loads((tmp_path / "open.json").read_text())["measured"]
    assert row["rate_per_s"] == 5
    assert 3 <= row["images"] <= 40


def test_what_can_not_work_is_one_line(service, capsys):
    for arguments, status, message in (
        (("--track", "E"), 2, "error: --track: no E of size nano; available: A, B, C, D1, D2, D3"),
        (("--size", "huge"), 2, "error: --size: there is no track of size huge"),
        (("--clients", "0"), 2, "error: argument --clients: 0 is not at least 1"),
        (("--pictures", "/nowhere"), 2, "error: /nowhere: there is no such file or folder"),
        (("--url", "http://127.0.0.1:9"), 1, "error: http://127.0.0.1:9 doesn't answer: "),
    ):
        with pytest.raises(SystemExit) as ended:
            main("", ["--url", service.url, *arguments])
        said = capsys.readouterr().err
        assert (ended.value.code, len(said.splitlines())) == (status, 1), said
        assert said.startswith(message), said

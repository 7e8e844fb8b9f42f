"""Which weights are shipped, and what the command says about it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.tools.export.demo import training
from serve_app.tools.export.demo.training import Quality, ship, train_detector

SCRIPT = Path(__file__).resolve().parents[4] / "scripts" / "train_demo_models"
GOOD, POOR = Quality(0.95, 0.8), Quality(0.6, 0.4)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    weights = tmp_path / "work" / "new.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"new")
    return weights


@pytest.fixture
def shipped(tmp_path: Path) -> Path:
    weights = tmp_path / "weights" / "demo.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"old")
    return weights


def test_good_weights_take_the_place_of_old_ones(trained: Path, shipped: Path) -> None:
    assert ship(trained, shipped, GOOD, force=False) is None
    assert shipped.read_bytes() == b"new"
    assert list(shipped.parent.iterdir()) == [shipped]


def test_poor_weights_are_refused_with_the_number_and_the_way_out(trained: Path, shipped: Path) -> None:
    refusal = ship(trained, shipped, POOR, force=False)
    assert shipped.read_bytes() == b"old"
    assert refusal is not None
    for part in (str(shipped), "0.6000", "0.9", str(trained), "--force"):
        assert part in refusal


def test_force_ships_poor_weights(trained: Path, shipped: Path) -> None:
    assert ship(trained, shipped, POOR, force=True) is None
    assert shipped.read_bytes() == b"new"


@pytest.mark.parametrize(("quality", "status"), [(GOOD, 0), (POOR, 1)])
def test_the_exit_status_tells_whether_weights_were_shipped(
    quality: Quality,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(training, "_train", lambda *_: tmp_path / "last.pt")
    monkeypatch.setattr(training, "_pack", lambda _: b"packed")
    monkeypatch.setattr(training, "measure", lambda *_, **__: quality)

    assert train_detector(tmp_path / "weights", tmp_path / "work") == status

    assert (tmp_path / "weights" / training.DETECTOR_FILE).exists() == (status == 0)
    assert str(quality) in capsys.readouterr().out


def test_the_command_explains_itself() -> None:
    told = subprocess.run([sys.executable, SCRIPT, "--help"], capture_output=True, text=True, check=True).stdout
    for word in ("detector", "--force", "--work"):
        assert word in told


def test_the_command_refuses_a_part_it_does_not_know() -> None:
    run = subprocess.run([sys.executable, SCRIPT, "segmenter"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "segmenter" in run.stderr

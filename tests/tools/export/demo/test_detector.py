"""The demo detector: the weights that ship, and when newly trained ones replace them."""

from __future__ import annotations

import pickletools
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.export.demo import detector
from serve_app.tools.export.demo.detector import (
    ARCHITECTURE,
    DETECTOR_FILE,
    GOAL_MAP50,
    Quality,
    measure,
    ship,
    train_detector,
)
from serve_app.tools.export.demo.shapes import CLASS_NAMES

WEIGHTS = PROJECT_ROOT / "model_repository" / "weights" / DETECTOR_FILE
GOOD, POOR = Quality(0.95, 0.8), Quality(0.6, 0.4)


def test_the_shipped_file_is_small_and_holds_no_paths_and_no_foreign_code() -> None:
    assert WEIGHTS.stat().st_size <= 6_000_000
    with zipfile.ZipFile(WEIGHTS) as archive:
        (name,) = (entry for entry in archive.namelist() if entry.endswith("data.pkl"))
        strings = [(code.name, text) for code, text, _ in pickletools.genops(archive.read(name)) if type(text) is str]
    modules = {text.split(".")[0].split(" ")[0] for code, text in strings if code == "GLOBAL"}
    assert modules <= {"torch", "ultralytics", "collections", "__builtin__", "builtins"}
    texts = [text for code, text in strings if code != "GLOBAL"]
    assert CLASS_NAMES[0] in texts
    assert [text for text in texts if text.endswith(".yaml")] == [ARCHITECTURE]
    assert [text for text in texts if "/" in text and "ultralytics.com" not in text] == []


def test_the_shipped_weights_reach_the_accuracy_goal_on_held_out_scenes(tmp_path: Path) -> None:
    from ultralytics import YOLO

    yolo = YOLO(WEIGHTS)
    assert yolo.task == "detect"
    assert tuple(yolo.names.values()) == CLASS_NAMES
    quality = measure(WEIGHTS, tmp_path, scenes=16)
    assert quality.map50 >= GOAL_MAP50, str(quality)


def test_new_weights_ship_when_they_are_good_or_forced_and_are_refused_with_the_number_otherwise(
    tmp_path: Path,
) -> None:
    trained, shipped = tmp_path / "new.pt", tmp_path / "weights" / "demo.pt"
    trained.write_bytes(b"new")
    shipped.parent.mkdir()
    for quality, force, refused in ((GOOD, False, False), (POOR, False, True), (POOR, True, False)):
        shipped.write_bytes(b"old")
        refusal = ship(trained, shipped, quality, force=force)
        assert refusal == (
            f"{shipped} is unchanged: mAP50 must be at least 0.9, got 0.6000. "
            f"The new weights are in {trained}; --force ships them anyway."
            if refused
            else None
        )
        assert shipped.read_bytes() == (b"old" if refused else b"new")
        assert list(shipped.parent.iterdir()) == [shipped]


@pytest.mark.parametrize(("quality", "status"), [(GOOD, 0), (POOR, 1)])
def test_the_exit_status_is_0_only_when_the_weights_shipped(
    quality: Quality,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(detector, "_train", lambda *_: tmp_path / "last.pt")
    monkeypatch.setattr(detector, "_pack", lambda _: b"packed")
    monkeypatch.setattr(detector, "measure", lambda *_, **__: quality)

    assert train_detector(tmp_path / "weights", tmp_path / "work") == status

    assert (tmp_path / "weights" / DETECTOR_FILE).exists() == (status == 0)
    assert str(quality) in capsys.readouterr().out


def test_the_command_shows_its_options_and_refuses_an_unknown_part() -> None:
    script = PROJECT_ROOT / "scripts" / "train_demo_models"
    run = subprocess.run([sys.executable, script, "segmenter"], capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "invalid choice: 'segmenter' (choose from 'all', 'detector', 'language')" in run.stderr
    assert "[--force] [--folder FOLDER] [--work WORK]" in " ".join(run.stderr.split())

"""The demo detector that ships: small, clean, and good at what it was trained for."""

from __future__ import annotations

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.tools.export.demo.shapes import CLASS_NAMES
from serve_app.tools.export.demo.training import ARCHITECTURE, DETECTOR_FILE, GOAL_MAP50, measure

WEIGHTS = Path(__file__).resolve().parents[4] / "model_repository" / "weights" / DETECTOR_FILE


def pickled_strings() -> Iterator[tuple[str, str]]:
    """Opcode and text of everything in the checkpoint's pickle that has text."""
    with zipfile.ZipFile(WEIGHTS) as archive:
        (name,) = (entry for entry in archive.namelist() if entry.endswith("data.pkl"))
        for opcode, argument, _ in pickletools.genops(archive.read(name)):
            if isinstance(argument, str):
                yield opcode.name, argument


def test_the_file_is_small() -> None:
    assert WEIGHTS.stat().st_size <= 6_000_000


def test_nothing_in_it_is_a_path() -> None:
    texts = [text for opcode, text in pickled_strings() if opcode != "GLOBAL"]
    assert CLASS_NAMES[0] in texts
    paths = [text for text in texts if "/" in text and "ultralytics.com" not in text]
    assert [text for text in texts if text.endswith(".yaml")] == [ARCHITECTURE]
    assert paths == []


def test_it_needs_only_torch_and_ultralytics_to_be_unpickled() -> None:
    modules = {text.split(".")[0].split(" ")[0] for opcode, text in pickled_strings() if opcode == "GLOBAL"}
    assert modules <= {"torch", "ultralytics", "collections", "__builtin__", "builtins"}


def test_it_loads_as_a_detector_with_its_class_names() -> None:
    from ultralytics import YOLO

    yolo = YOLO(WEIGHTS)
    assert yolo.task == "detect"
    assert tuple(yolo.names.values()) == CLASS_NAMES


@pytest.mark.timeout(300)
def test_it_reaches_the_goal_on_held_out_scenes(tmp_path: Path) -> None:
    quality = measure(WEIGHTS, tmp_path, scenes=60)
    assert quality.map50 >= GOAL_MAP50, str(quality)

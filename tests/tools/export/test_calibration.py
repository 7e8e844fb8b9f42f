"""The pictures that quantized engines are calibrated with, and when another set of them needs another build."""

import shutil

import cv2
import numpy as np
import pytest

from serve_app.errors import ConfigurationError
from serve_app.settings import DetectionSettings
from serve_app.tools.export.calibration import CALIBRATION_PICTURES, calibration_squares
from serve_app.tools.export.engines import EngineBuilder


def write_picture(path, grey):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((30, 40, 3), grey, np.uint8))


def key(precision, calibration, engine="openvino"):
    models = {"nano": {"weights": "demo", "precision": precision}}
    return EngineBuilder(DetectionSettings(models=models, engine=engine, calibration=calibration), "nano").key


@pytest.mark.parametrize(("precision", "engine"), [("int8", "openvino"), ("int8", "tensorrt"), ("fp8", "tensorrt")])
def test_a_quantized_engine_is_rebuilt_when_its_calibration_pictures_change_not_when_they_move(
    tmp_path, precision, engine
):
    folder = tmp_path / "pictures"
    write_picture(folder / "a.png", 10)
    write_picture(folder / "b.png", 20)
    first = key(precision, folder, engine)
    assert first != key(precision, None, engine)
    shutil.copytree(folder, tmp_path / "copy")
    assert key(precision, tmp_path / "copy", engine) == first, "the same pictures in another folder"
    (folder / "notes.txt").write_text("not a picture")
    assert key(precision, folder, engine) == first, "a file that is not read"
    write_picture(folder / "b.png", 30)
    replaced = key(precision, folder, engine)
    assert replaced != first, "another picture under the same name"
    write_picture(folder / "sub" / "c.png", 40)
    assert key(precision, folder, engine) != replaced, "one picture more"


def test_an_engine_that_is_not_quantized_does_not_depend_on_calibration_pictures(tmp_path):
    write_picture(tmp_path / "a.png", 10)
    assert key("f32", tmp_path) == key("f32", None)


def test_at_most_128_pictures_are_read_and_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(ConfigurationError) as error:
        next(calibration_squares(tmp_path, 64))
    assert str(error.value) == (f"detection.calibration: no pictures (.jpg, .jpeg, .png, .webp, .bmp) in {tmp_path}")
    for number in range(CALIBRATION_PICTURES + 1):
        write_picture(tmp_path / f"{number:03}.png", number)
    squares = list(calibration_squares(tmp_path, 64))
    assert [int(square[32, 32, 0]) for square in squares] == list(range(128))

"""`scripts/batch` on real engines, killed at any moment and begun again: every picture in one table, once."""

import json
import random
import shutil
import subprocess
import sys
from collections import Counter

import cv2
import pytest
import yaml

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.batch.places import Place
from serve_app.tools.batch.tables import rows_of
from serve_app.tools.export.demo.scenes import draw_scene

pytestmark = pytest.mark.e2e
START_S = 8  # about what the engines take; a kill before finds nothing done, which must do no harm either
BEGUN_AFTER_S = 300
ENOUGH_S = 1800


def make_pictures(folder, count, broken):
    """Drawn scenes under many names, and some that are cut off or no pictures at all."""
    scenes = [cv2.imencode(".jpg", draw_scene(seed, size=(320, 240)).image)[1].tobytes() for seed in range(20)]
    for number in range(count - broken):
        (folder / f"{number:05}.jpg").write_bytes(scenes[number % len(scenes)])
    for number in range(broken):
        content = scenes[number % len(scenes)]
        (folder / f"broken-{number:05}.jpg").write_bytes(content[:1500] if number % 2 else b"no picture")


def batch(*arguments):
    command = [sys.executable, PROJECT_ROOT / "scripts" / "batch", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run_with_kills(source, destination, kills, shard, seed):
    """How often it was cut off, and what the last run, which nobody cut off, said."""
    chance = random.Random(seed)
    killed = 0
    for _ in range(kills):
        run = batch(source, destination, "--shard", shard)
        try:
            run.wait(chance.uniform(START_S / 2, START_S * 2.5))
        except subprocess.TimeoutExpired:
            run.kill()
            killed += 1
        run.communicate()
    last = batch(source, destination, "--shard", shard)
    output, _ = last.communicate(timeout=ENOUGH_S)
    return killed, last.returncode, output


def check_tables(source, destination, broken):
    place = Place.of(str(destination))
    found = [row["picture"] for row in rows_of(place, "detections")]
    failed = [row["picture"] for row in rows_of(place, "errors")]
    counts = Counter(found + failed)
    assert set(counts) == {str(path) for path in source.iterdir()}
    assert set(counts.values()) == {1}
    assert len(failed) == broken
    assert all("broken-" in name for name in failed)


@pytest.mark.timeout(ENOUGH_S)
@pytest.mark.parametrize(
    ("pictures", "broken", "kills", "shard"),
    [pytest.param(200, 10, 3, 8, id="few"), pytest.param(2000, 100, 10, 32, id="many", marks=pytest.mark.chaos)],
)
def test_every_picture_is_in_one_table_once_however_often_it_is_killed(tmp_path, pictures, broken, kills, shard):
    source, destination = tmp_path / "pictures", tmp_path / "tables"
    source.mkdir()
    make_pictures(source, pictures, broken)
    killed, status, output = run_with_kills(source, destination, kills, shard, seed=pictures)
    assert killed >= kills - 1, "most runs were cut off"
    assert status == 0, output
    assert f"{pictures} pictures, " in output
    check_tables(source, destination, broken)


def test_what_is_found_is_what_the_service_would_say_and_nothing_is_done_twice(tmp_path, compare):
    picture = (PROJECT_ROOT / "docs" / "shapes.jpg").read_bytes()
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "in" / name).write_bytes(picture)
    first = batch(tmp_path / "in", tmp_path / "out", "--coco", tmp_path / "coco.json")
    output, _ = first.communicate(timeout=BEGUN_AFTER_S)
    assert first.returncode == 0, output
    assert "2 pictures detected, 0 unreadable" in output
    rows = list(rows_of(Place.of(str(tmp_path / "out")), "detections"))
    for row in rows:
        assert (row["width"], row["height"], len(row["detections"])) == (640, 480, 6)
        assert row["detections"][0]["class_name"] == "heart"
        assert row["detections"][0]["x1"] == pytest.approx(0.2752, abs=1e-3)
    document = json.loads((tmp_path / "coco.json").read_text())
    assert (len(document["images"]), len(document["annotations"])) == (2, 12)
    again = batch(tmp_path / "in", tmp_path / "out")
    output, _ = again.communicate(timeout=60)
    assert again.returncode == 0
    assert "2 pictures, 2 already done" in output
    assert "engines" not in output


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("/nowhere", "OUT"), 2, "error: /nowhere: no such file or folder"),
        (("EMPTY", "OUT"), 2, "error: EMPTY: no pictures"),
        (("PICTURES", "OUT", "--track", "huge"), 1, "error: no track 'huge'; available: nano, nano_end2end"),
        (("PICTURES", "OUT", "--shard", "0"), 2, "error: argument --shard: 0 is not from 1 to 100000"),
        (("PICTURES", "OUT", "--config", "/nowhere.yaml"), 1, "error: /nowhere.yaml: No such file or directory"),
    ],
)
def test_what_can_not_work_is_one_line(tmp_path, arguments, status, message):
    for name in ("pictures", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"x")
    places = {"PICTURES": tmp_path / "pictures", "EMPTY": tmp_path / "empty", "OUT": tmp_path / "out"}
    run = batch(*(places.get(argument, argument) for argument in arguments))
    output, _ = run.communicate(timeout=60)
    assert run.returncode == status
    assert output.startswith(message.replace("EMPTY", str(places["EMPTY"]))), output
    assert len(output.splitlines()) == 1


def test_an_engine_that_can_not_start_says_why_in_the_last_line(tmp_path):
    config = yaml.safe_load((PROJECT_ROOT / "configs" / "serve.yaml").read_text())
    detection = config["applications"][0]["args"]["detection"]
    shutil.copytree(PROJECT_ROOT / detection["model_repository"], tmp_path / "models")
    (tmp_path / "models" / "yolo_nano_engine_batch" / "1" / "model.xml").unlink()
    detection["model_repository"] = str(tmp_path / "models")
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config))
    run = batch(PROJECT_ROOT / "docs" / "shapes.jpg", tmp_path / "out", "--config", tmp_path / "serve.yaml")
    output, _ = run.communicate(timeout=110)
    assert run.returncode == 1
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: model 'yolo_nano_engine_batch' can't be loaded: Internal: FileNotFoundError: no eng")
    assert last.endswith("; run the command again to continue")

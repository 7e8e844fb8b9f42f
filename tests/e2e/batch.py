"""Runs of `scripts/batch`, pictures for them, and what must be true of the tables that they leave."""

import os
import subprocess
import sys
from collections import Counter

import cv2

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.batch.places import Place
from serve_app.tools.batch.tables import rows_of
from serve_app.tools.export.demo.scenes import draw_scene


def make_pictures(folder, count, broken):
    """Drawn scenes under many names, and some that are cut off or no pictures at all."""
    folder.mkdir()
    scenes = [cv2.imencode(".jpg", draw_scene(seed, size=(320, 240)).image)[1].tobytes() for seed in range(20)]
    for number in range(count - broken):
        (folder / f"{number:05}.jpg").write_bytes(scenes[number % len(scenes)])
    for number in range(broken):
        content = scenes[number % len(scenes)]
        (folder / f"broken-{number:05}.jpg").write_bytes(content[:1500] if number % 2 else b"no picture")


def begin(*arguments, **environment):
    command = [sys.executable, PROJECT_ROOT / "scripts" / "batch", *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | environment
    )


def finish(run, timeout_s=300):
    """The output of a run that must succeed."""
    output, _ = run.communicate(timeout=timeout_s)
    assert run.returncode == 0, output
    return output


def check_tables(source, destination, broken):
    """Every picture is in one of the two tables, once."""
    place = Place.of(str(destination))
    found = [row["picture"] for row in rows_of(place, "detections")]
    failed = [row["picture"] for row in rows_of(place, "errors")]
    counts = Counter(found + failed)
    assert set(counts) == {str(path) for path in source.iterdir()}
    assert set(counts.values()) == {1}
    assert len(failed) == broken
    assert all("broken-" in name for name in failed)

"""`scripts/batch` killed at random moments over thousands of pictures: every picture is in one table, once."""

import random
import subprocess

import pytest

from tests.e2e.batch import begin, check_tables, finish, make_pictures

START_S = 8  # about what the engines take; a kill before finds nothing done, which must do no harm either
PICTURES, BROKEN, KILLS, SHARD = 2000, 100, 10, 32


@pytest.mark.timeout(1800)
def test_every_picture_is_in_one_table_once_however_often_it_is_killed(tmp_path):
    source, destination = tmp_path / "pictures", tmp_path / "tables"
    make_pictures(source, PICTURES, BROKEN)
    chance = random.Random(PICTURES)
    killed = 0
    for _ in range(KILLS):
        run = begin(source, destination, "--shard", SHARD)
        try:
            run.wait(chance.uniform(START_S / 2, START_S * 2.5))
        except subprocess.TimeoutExpired:
            run.kill()
            killed += 1
        run.communicate()
    assert killed >= KILLS - 1, "most runs were cut off"
    assert f"{PICTURES} pictures, " in finish(begin(source, destination, "--shard", SHARD), 1800)
    check_tables(source, destination, BROKEN)

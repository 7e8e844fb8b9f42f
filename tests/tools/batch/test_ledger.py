"""What is to do, what is done, and tables in which every picture stands once."""

import json

import pytest

from serve_app.errors import InvalidRequestError
from serve_app.tools.batch.ledger import Ledger, Shard
from serve_app.tools.batch.places import Place
from serve_app.tools.batch.tables import rows_of, store, write_coco
from serve_app.types import Detection, PictureResult

HOW = {"track": "nano", "conf": 0.25}
NAMES = [f"/p/{number}.jpg" for number in range(7)]
HEART = Detection(0.25, 0.5, 0.75, 1.0, 0.9, 5, "heart")
GOOD = PictureResult(640, 480, (HEART,))
BAD = PictureResult(error="cut off", error_status=422)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(str(tmp_path / "out"))


def test_pictures_are_planned_in_shards(ledger):
    shards = ledger.plan(NAMES, HOW, 3)
    assert [shard.pictures for shard in shards] == [tuple(NAMES[:3]), tuple(NAMES[3:6]), tuple(NAMES[6:])]
    assert ledger.open(shards) == shards


def test_a_second_run_finds_the_same_shards_and_leaves_out_what_is_done(ledger):
    first = ledger.plan(NAMES, HOW, 3)
    store(first[1], dict.fromkeys(first[1].pictures, GOOD), ledger.place)
    again = ledger.plan(NAMES[::-1], HOW, 100)
    assert again == first
    assert ledger.open(again) == [first[0], first[2]]


def test_pictures_that_are_new_get_shards_of_their_own(ledger):
    ledger.plan(NAMES[:5], HOW, 3)
    shards = ledger.plan(NAMES, HOW, 3)
    assert [shard.pictures for shard in shards] == [tuple(NAMES[:3]), tuple(NAMES[3:5]), tuple(NAMES[5:])]


def test_results_of_another_track_are_not_mixed_in(ledger):
    ledger.plan(NAMES, HOW, 3)
    with pytest.raises(InvalidRequestError, match="take another destination"):
        ledger.plan(NAMES, HOW | {"conf": 0.5}, 3)


def test_every_picture_stands_in_one_of_the_tables(ledger):
    shard = Shard(0, ("a", "b", "c"))
    assert store(shard, {"a": GOOD, "b": BAD, "c": GOOD}, ledger.place) == (2, 1)
    (first, second) = rows_of(ledger.place, "detections")
    assert (first["picture"], first["width"], second["picture"]) == ("a", 640, "c")
    assert first["detections"][0]["class_name"] == "heart"
    assert list(rows_of(ledger.place, "errors")) == [{"picture": "b", "status": 422, "error": "cut off"}]


def test_a_try_that_was_cut_off_leaves_nothing_behind(ledger):
    """Killed between the two tables; what could not be read then can be now."""
    shard = Shard(0, ("a", "b"))
    store(shard, {"a": BAD, "b": BAD}, ledger.place)
    (Place.of(str(ledger.place)) / "detections" / shard.file).remove()
    (ledger.place / "detections" / f"{shard.file}.0.part").system.open_output_stream(
        f"{ledger.place.path}/detections/{shard.file}.0.part"
    ).close()
    assert ledger.open([shard]) == [shard]
    store(shard, {"a": GOOD, "b": GOOD}, ledger.place)
    assert list(rows_of(ledger.place, "errors")) == []
    assert [row["picture"] for row in rows_of(ledger.place, "detections")] == ["a", "b"]
    assert [path.rpartition("/")[2] for path in (ledger.place / "detections").files()] == [shard.file]


def test_a_shard_of_broken_pictures_only_is_done_too(ledger):
    shard = Shard(4, ("a",))
    store(shard, {"a": BAD}, ledger.place)
    assert ledger.open([shard]) == []
    assert list(rows_of(ledger.place, "detections")) == []


def test_all_detections_are_one_coco_document(ledger, tmp_path):
    store(Shard(0, ("a", "b")), {"a": GOOD, "b": BAD}, ledger.place)
    store(Shard(1, ("c",)), {"c": PictureResult(100, 200)}, ledger.place)
    write_coco(ledger.place, Place.of(str(tmp_path / "coco.json")))
    document = json.loads((tmp_path / "coco.json").read_text())
    assert [image["file_name"] for image in document["images"]] == ["a", "c"]
    assert document["categories"] == [{"id": 5, "name": "heart"}]
    (annotation,) = document["annotations"]
    assert annotation["bbox"] == [160.0, 240.0, 320.0, 240.0]
    assert annotation["score"] == pytest.approx(0.9)

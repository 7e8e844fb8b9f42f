"""Planning shards, continuing a run, and tables that hold every picture once."""

import json

import pytest

from serve_app.errors import InvalidRequestError
from serve_app.tools.batch.places import Place
from serve_app.tools.batch.plan import Plan, Shard
from serve_app.tools.batch.tables import rows_of, store, write_coco
from serve_app.types import Detection, PictureResult

OPTIONS = {"track": "nano", "conf": 0.25}
NAMES = [f"/p/{number}.jpg" for number in range(7)]
HEART = Detection(0.25, 0.5, 0.75, 1.0, 0.9, 5, "heart")
GOOD = PictureResult(640, 480, (HEART,))
BAD = PictureResult(error="cut off", error_status=422)


@pytest.fixture
def plan(tmp_path):
    return Plan(str(tmp_path / "out"))


def test_pictures_are_planned_in_shards(plan):
    shards = plan.update(NAMES, OPTIONS, 3)
    assert [shard.pictures for shard in shards] == [tuple(NAMES[:3]), tuple(NAMES[3:6]), tuple(NAMES[6:])]
    assert plan.unfinished(shards) == shards


def test_a_second_run_finds_the_same_shards_and_leaves_out_what_is_done(plan):
    first = plan.update(NAMES, OPTIONS, 3)
    store(first[1], dict.fromkeys(first[1].pictures, GOOD), plan.place)
    again = plan.update(NAMES[::-1], OPTIONS, 100)
    assert again == first
    assert plan.unfinished(again) == [first[0], first[2]]


def test_pictures_that_are_new_get_shards_of_their_own(plan):
    plan.update(NAMES[:5], OPTIONS, 3)
    shards = plan.update(NAMES, OPTIONS, 3)
    assert [shard.pictures for shard in shards] == [tuple(NAMES[:3]), tuple(NAMES[3:5]), tuple(NAMES[5:])]


def test_results_of_another_track_are_not_mixed_in(plan):
    plan.update(NAMES, OPTIONS, 3)
    with pytest.raises(InvalidRequestError, match=r"has results of track=nano, conf=0\.25, not of .*0\.5: use another"):
        plan.update(NAMES, OPTIONS | {"conf": 0.5}, 3)


def test_every_picture_stands_in_one_of_the_tables(plan):
    shard = Shard(0, ("a", "b", "c"))
    assert store(shard, {"a": GOOD, "b": BAD, "c": GOOD}, plan.place) == (2, 1)
    (first, second) = rows_of(plan.place, "detections")
    assert (first["picture"], first["width"], second["picture"]) == ("a", 640, "c")
    assert first["detections"][0]["class_name"] == "heart"
    assert list(rows_of(plan.place, "errors")) == [{"picture": "b", "status": 422, "error": "cut off"}]


def test_a_try_that_was_cut_off_leaves_nothing_behind(plan):
    """Killed between the two tables; what could not be read then can be now."""
    shard = Shard(0, ("a", "b"))
    store(shard, {"a": BAD, "b": BAD}, plan.place)
    (Place.of(str(plan.place)) / "detections" / shard.file).remove()
    (plan.place / "detections" / f"{shard.file}.0.part").system.open_output_stream(
        f"{plan.place.path}/detections/{shard.file}.0.part"
    ).close()
    assert plan.unfinished([shard]) == [shard]
    store(shard, {"a": GOOD, "b": GOOD}, plan.place)
    assert list(rows_of(plan.place, "errors")) == []
    assert [row["picture"] for row in rows_of(plan.place, "detections")] == ["a", "b"]
    assert [path.rpartition("/")[2] for path in (plan.place / "detections").files()] == [shard.file]


def test_a_shard_of_broken_pictures_only_is_done_too(plan):
    shard = Shard(4, ("a",))
    store(shard, {"a": BAD}, plan.place)
    assert plan.unfinished([shard]) == []
    assert list(rows_of(plan.place, "detections")) == []


def test_all_detections_are_one_coco_document(plan, tmp_path):
    store(Shard(0, ("a", "b")), {"a": GOOD, "b": BAD}, plan.place)
    store(Shard(1, ("c",)), {"c": PictureResult(100, 200)}, plan.place)
    write_coco(plan.place, Place.of(str(tmp_path / "coco.json")))
    document = json.loads((tmp_path / "coco.json").read_text())
    assert [image["file_name"] for image in document["images"]] == ["a", "c"]
    assert document["categories"] == [{"id": 5, "name": "heart"}]
    (annotation,) = document["annotations"]
    assert annotation["bbox"] == [160.0, 240.0, 320.0, 240.0]
    assert annotation["score"] == pytest.approx(0.9)


def test_a_file_is_written_whole_and_removed(tmp_path):
    place = Place.of(str(tmp_path)) / "table" / "x.parquet"
    place.write(b"first")
    place.write(b"second")
    assert place.read() == b"second"
    assert [path.rpartition("/")[2] for path in (Place.of(str(tmp_path)) / "table").files()] == ["x.parquet"]
    place.remove()
    place.remove()
    assert (Place.of(str(tmp_path)) / "table").files() == []

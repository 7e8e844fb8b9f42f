"""Which pictures a source means, how they are read, and files that are whole or not there."""

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from serve_app.errors import InvalidRequestError
from serve_app.tools.batch.places import Place, pictures_of, read_picture


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.PNG", "deep/c.webp", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_a_folder_means_its_pictures_at_every_depth(folder):
    assert pictures_of(str(folder)) == [str(folder / name) for name in ("a.PNG", "b.jpg", "deep/c.webp")]
    assert pictures_of(f"file://{folder}") == [f"file://{folder}/{name}" for name in ("a.PNG", "b.jpg", "deep/c.webp")]


def test_one_picture_is_a_source_too(folder):
    assert pictures_of(str(folder / "b.jpg")) == [str(folder / "b.jpg")]
    assert read_picture(str(folder / "b.jpg")) == b"b.jpg"
    assert read_picture(f"file://{folder}/b.jpg") == b"b.jpg"


def test_a_list_has_a_picture_a_line_beside_it_or_anywhere(folder):
    (folder / "list.txt").write_text("# the good ones\nb.jpg\n\n/elsewhere/x.jpg, 3\ns3://bucket/y.jpg\n")
    assert pictures_of(str(folder / "list.txt")) == [str(folder / "b.jpg"), "/elsewhere/x.jpg", "s3://bucket/y.jpg"]


def test_a_table_may_have_paths(folder):
    table = arrow.table({"id": [1, 2], "path": ["/x/1.jpg", "/x/2.jpg"]})
    parquet.write_table(table, folder / "t.parquet")
    assert pictures_of(str(folder / "t.parquet")) == ["/x/1.jpg", "/x/2.jpg"]


def test_a_table_may_have_the_pictures_themselves(folder):
    rows = [b"first", b"second", b"third"]
    parquet.write_table(
        arrow.table({"image": arrow.array(rows, arrow.binary())}), folder / "t.parquet", row_group_size=2
    )
    names = pictures_of(str(folder / "t.parquet"))
    assert names == [f"{folder}/t.parquet#{row}" for row in range(3)]
    assert [read_picture(name) for name in names] == rows
    assert [read_picture(name) for name in reversed(names)] == rows[::-1]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "nowhere: there is no such file or folder"),
        ("deep", "no pictures"),
        ("other.parquet", "has the columns id, and none of uri, path"),
        ("twice.txt", "1 pictures are named twice"),
        ("gopher://x/y", "gopher"),
    ],
)
def test_a_source_without_pictures_is_told(folder, source, message):
    (folder / "deep" / "c.webp").unlink()
    parquet.write_table(arrow.table({"id": [1]}), folder / "other.parquet")
    (folder / "twice.txt").write_text("b.jpg\na.PNG\nb.jpg\n")
    with pytest.raises(InvalidRequestError) as told:
        pictures_of(source if "://" in source else str(folder / source))
    assert message in told.value.message


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    place = Place.of(str(tmp_path)) / "table" / "x.parquet"
    place.write(b"first")
    place.write(b"second")
    assert place.read() == b"second"
    assert [path.rpartition("/")[2] for path in (Place.of(str(tmp_path)) / "table").files()] == ["x.parquet"]
    place.remove()
    place.remove()
    assert (Place.of(str(tmp_path)) / "table").files() == []

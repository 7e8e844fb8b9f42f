"""Finding the pictures of a source, and reading them concurrently."""

import asyncio

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from serve_app.errors import InvalidRequestError
from serve_app.tools.batch.pictures import find_pictures, read_picture


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "a.PNG", "deep/c.webp", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_a_folder_holds_its_pictures_at_every_depth(folder):
    assert find_pictures(str(folder)) == [str(folder / name) for name in ("a.PNG", "b.jpg", "deep/c.webp")]
    assert find_pictures(f"file://{folder}") == [
        f"file://{folder}/{name}" for name in ("a.PNG", "b.jpg", "deep/c.webp")
    ]


async def test_one_picture_is_a_source(folder):
    assert find_pictures(str(folder / "b.jpg")) == [str(folder / "b.jpg")]
    assert await read_picture(str(folder / "b.jpg")) == b"b.jpg"
    assert await read_picture(f"file://{folder}/b.jpg") == b"b.jpg"


def test_a_list_names_pictures_relative_to_itself_or_by_absolute_path(folder):
    (folder / "list.txt").write_text("# the good ones\nb.jpg\n\n/elsewhere/x.jpg, 3\ns3://bucket/y.jpg\n")
    assert find_pictures(str(folder / "list.txt")) == [str(folder / "b.jpg"), "/elsewhere/x.jpg", "s3://bucket/y.jpg"]


def test_a_table_may_hold_paths(folder):
    table = arrow.table({"id": [1, 2], "path": ["/x/1.jpg", "/x/2.jpg"]})
    parquet.write_table(table, folder / "t.parquet")
    assert find_pictures(str(folder / "t.parquet")) == ["/x/1.jpg", "/x/2.jpg"]


async def test_a_table_may_hold_the_pictures_themselves(folder):
    rows = [b"first", b"second", None]
    table = arrow.table({"image": arrow.array(rows, arrow.binary())})
    parquet.write_table(table, folder / "t.parquet", row_group_size=2)
    names = find_pictures(str(folder / "t.parquet"))
    assert names == [f"{folder}/t.parquet#{row}" for row in range(3)]
    assert [await read_picture(name) for name in reversed(names[:2])] == rows[1::-1]
    for row, message in (
        (2, "row 2 of .*t.parquet has no picture"),
        (3, "t.parquet has only 3 rows, so it has no row 3"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            await read_picture(f"{folder}/t.parquet#{row}")


async def test_concurrent_reads_of_a_table_read_each_row_group_once(folder, monkeypatch):
    reads, read_row_group = [], parquet.ParquetFile.read_row_group
    monkeypatch.setattr(
        parquet.ParquetFile,
        "read_row_group",
        lambda table, group, columns: reads.append(group) or read_row_group(table, group, columns),
    )
    rows = [b"%d" % row for row in range(128)]
    table = arrow.table({"image": arrow.array(rows, arrow.binary())})
    parquet.write_table(table, folder / "t.parquet", row_group_size=8)
    assert await asyncio.gather(*map(read_picture, find_pictures(str(folder / "t.parquet")))) == rows
    assert reads == list(range(16))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "nowhere: no such file or folder"),
        ("deep", "no pictures"),
        ("other.parquet", "needs one of the columns uri, path"),
        ("twice.txt", "1 pictures are listed more than once"),
        ("gopher://x/y", "gopher"),
    ],
)
def test_a_source_without_pictures_is_refused(folder, source, message):
    (folder / "deep" / "c.webp").unlink()
    parquet.write_table(arrow.table({"id": [1]}), folder / "other.parquet")
    (folder / "twice.txt").write_text("b.jpg\na.PNG\nb.jpg\n")
    with pytest.raises(InvalidRequestError) as refused:
        find_pictures(source if "://" in source else str(folder / source))
    assert message in refused.value.message

"""`scripts/batch` from S3 to S3, on a real S3 API on loopback."""

import os
import subprocess
import sys

import httpx
import pyarrow
import pyarrow.parquet as parquet
import pytest
from pyarrow.fs import FileSelector, S3FileSystem

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.bench.baselines.processes import answers, free_port, running

pytestmark = pytest.mark.e2e
PICTURE = (PROJECT_ROOT / "docs" / "shapes.jpg").read_bytes()


@pytest.fixture(scope="module")
def s3():
    """The address of moto's server, with an empty bucket, and what finds it there."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}
    with running("moto", command, lambda: answers(url)):
        httpx.put(f"{url}/bucket").raise_for_status()
        yield keys | {"AWS_ENDPOINT_URL": url}


@pytest.fixture(scope="module")
def bucket(s3):
    host = s3["AWS_ENDPOINT_URL"].removeprefix("http://")
    return S3FileSystem(access_key="x", secret_key="y", endpoint_override=host, scheme="http", region="us-east-1")


def put(bucket, path, content):
    with bucket.open_output_stream(path) as stream:
        stream.write(content)


def batch(s3, *arguments):
    command = [sys.executable, PROJECT_ROOT / "scripts" / "batch", *arguments]
    return subprocess.run(command, env=os.environ | s3, capture_output=True, text=True, timeout=110)


def table(bucket, folder):
    files = [one.path for one in bucket.get_file_info(FileSelector(folder)) if one.path.endswith(".parquet")]
    return pyarrow.concat_tables([parquet.read_table(file, filesystem=bucket) for file in files]).to_pylist()


def test_pictures_of_a_bucket_are_found_in_tables_of_the_bucket_and_a_second_run_has_nothing_to_do(s3, bucket):
    for name in ("a.jpg", "deep/b.jpg", "c.jpg"):
        put(bucket, f"bucket/pictures/{name}", PICTURE)
    put(bucket, "bucket/pictures/broken.png", b"no picture")
    ran = batch(s3, "s3://bucket/pictures", "s3://bucket/tables", "--shard", "2", "--coco", "s3://bucket/coco.json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "3 pictures detected, 1 unreadable" in ran.stdout
    found = {row["picture"]: row for row in table(bucket, "bucket/tables/detections")}
    assert sorted(found) == [f"s3://bucket/pictures/{name}" for name in ("a.jpg", "c.jpg", "deep/b.jpg")]
    assert {len(row["detections"]) for row in found.values()} == {6}
    (failed,) = table(bucket, "bucket/tables/errors")
    assert failed["picture"] == "s3://bucket/pictures/broken.png"
    again = batch(s3, "s3://bucket/pictures", "s3://bucket/tables", "--shard", "2")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "4 pictures, 4 already done" in again.stdout


def test_a_bucket_that_is_not_there_is_one_line(s3):
    ran = batch(s3, "s3://nothing/pictures", "s3://bucket/tables")
    assert ran.returncode != 0
    assert len(ran.stderr.splitlines()) == 1, ran.stderr
    assert "nothing" in ran.stderr

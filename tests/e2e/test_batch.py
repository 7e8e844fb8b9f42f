"""`scripts/batch` on real engines: killed and begun again, from S3 to S3, and what it says when it can't work."""

import json
import shutil
import sys

import httpx
import pyarrow
import pyarrow.parquet as parquet
import pytest
import yaml
from pyarrow.fs import FileSelector, S3FileSystem

from serve_app.settings import PROJECT_ROOT
from serve_app.tools.batch.command import main
from serve_app.tools.bench.baselines.processes import answers, free_port, running
from tests.e2e.batch import begin, finish
from tests.e2e.service import SHAPES


@pytest.fixture
def batch(starts):
    """Begin a run; each starts a Ray cluster."""

    def counted(*arguments, **environment):
        starts.count("e2e")
        return begin(*arguments, **environment)

    return counted


@pytest.fixture
def s3():
    """The address and keys of moto's server, which has an empty bucket."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}
    with running("moto", command, lambda: answers(url)):
        httpx.put(f"{url}/bucket").raise_for_status()
        yield keys | {"AWS_ENDPOINT_URL": url}


@pytest.fixture
def bucket(s3):
    host = s3["AWS_ENDPOINT_URL"].removeprefix("http://")
    return S3FileSystem(access_key="x", secret_key="y", endpoint_override=host, scheme="http", region="us-east-1")


def put(bucket, path, content):
    with bucket.open_output_stream(path) as stream:
        stream.write(content)


def tables_in(bucket, folder):
    return [one.path for one in bucket.get_file_info(FileSelector(folder, allow_not_found=True))]


def rows_in(bucket, folder):
    return pyarrow.concat_tables(
        [parquet.read_table(path, filesystem=bucket) for path in tables_in(bucket, folder)]
    ).to_pylist()


@pytest.mark.timeout(600)
def test_a_run_from_s3_to_s3_that_was_killed_goes_on_and_every_picture_is_in_one_table_once(
    s3, bucket, batch, wait_for
):
    """Killed once, after its first shard; `make chaos` kills at random moments."""
    names = sorted(["deep/a.jpg", *(f"{number:02}.jpg" for number in range(39))])
    for name in names:
        put(bucket, f"bucket/pictures/{name}", SHAPES.read_bytes())
    put(bucket, "bucket/pictures/broken.png", b"no picture")
    arguments = ("s3://bucket/pictures", "s3://bucket/tables", "--shard", "2", "--coco", "s3://bucket/coco.json")
    run = batch(*arguments, **s3)

    def stored():
        return tables_in(bucket, "bucket/tables/detections")

    try:
        wait_for(lambda: stored() or run.poll() is not None, 300, "a shard is stored")
    finally:
        run.kill()
        output, _ = run.communicate()
    assert stored(), output
    assert "41 pictures, 0 already done" not in finish(batch(*arguments, **s3))
    found = sorted(rows_in(bucket, "bucket/tables/detections"), key=lambda row: row["picture"])
    assert [row["picture"] for row in found] == [f"s3://bucket/pictures/{name}" for name in names]
    for row in found:
        assert (row["width"], row["height"], len(row["detections"])) == (640, 480, 6)
        assert row["detections"][0]["class_name"] == "heart"
        assert row["detections"][0]["x1"] == pytest.approx(0.2752, abs=1e-3)
    (failed,) = rows_in(bucket, "bucket/tables/errors")
    assert failed["picture"] == "s3://bucket/pictures/broken.png"
    with bucket.open_input_stream("bucket/coco.json") as stream:
        document = json.loads(stream.read())
    assert (len(document["images"]), len(document["annotations"])) == (40, 240)
    again = finish(begin(*arguments, **s3))
    assert "41 pictures, 41 already done" in again
    assert "engines" not in again
    missing = begin("s3://nothing/pictures", "s3://bucket/tables", **s3)
    output, _ = missing.communicate(timeout=60)
    assert missing.returncode != 0
    assert len(output.splitlines()) == 1, output
    assert "nothing" in output


@pytest.mark.timeout(600)
def test_an_engine_that_can_not_start_says_why_in_the_last_line(tmp_path, batch):
    config = yaml.safe_load((PROJECT_ROOT / "configs" / "serve.yaml").read_text())
    detection = config["applications"][0]["args"]["detection"]
    shutil.copytree(PROJECT_ROOT / detection["model_repository"], tmp_path / "models")
    (tmp_path / "models" / "yolo_nano_engine_batch" / "1" / "model.xml").unlink()
    detection["model_repository"] = str(tmp_path / "models")
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config))
    run = batch(SHAPES, tmp_path / "out", "--config", tmp_path / "serve.yaml")
    output, _ = run.communicate(timeout=110)
    assert run.returncode == 1
    last = output.strip().splitlines()[-1]
    assert last.startswith("error: model 'yolo_nano_engine_batch' can't be loaded: Internal: FileNotFoundError: ")
    assert "has no model.xml: build it with `make models`" in last
    assert last.endswith("; run the command again to continue")


def test_what_can_not_work_is_one_line(tmp_path, capsys):
    pictures, empty = tmp_path / "pictures", tmp_path / "empty"
    for folder in (pictures, empty):
        folder.mkdir()
    (pictures / "a.jpg").write_bytes(b"x")
    for source, arguments, status, message in (
        ("/nowhere", (), 2, "error: /nowhere: no such file or folder"),
        (empty, (), 2, f"error: {empty}: no pictures"),
        (pictures, ("--track", "huge"), 1, "error: no track 'huge'; available: nano, nano_end2end"),
        (pictures, ("--shard", "0"), 2, "error: argument --shard: 0 is not from 1 to 100000"),
        (pictures, ("--config", "/nowhere.yaml"), 1, "error: /nowhere.yaml: No such file or directory"),
    ):
        with pytest.raises(SystemExit) as ended:
            main("", [str(source), str(tmp_path / "out"), *arguments])
        output = capsys.readouterr()
        assert ended.value.code == status, output.err
        assert output.err.startswith(message), output.err
        assert len((output.out + output.err).splitlines()) == 1

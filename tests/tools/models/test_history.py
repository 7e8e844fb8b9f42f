"""What a bucket tells of its pushes, going back to one, and removing the old."""

import hashlib
import re
import time
from datetime import timedelta

import pytest

from serve_app.tools.models.catalog import Catalog
from serve_app.tools.models.history import prune
from serve_app.tools.models.store import BucketUrl, Store


@pytest.fixture
def three(models, source, url, objects, until):
    """Digests of three pushes that differ in one file, the oldest first."""
    digests = []
    for content in ("one", "two", "three"):
        second = int(time.time())
        until(lambda second=second: time.time() > second + 1, "the next second, which is as fine as S3's times are")
        (source / "encoder" / "1" / "model.plan").write_text(content)
        models.succeed("push", source, url)
        digests.append(objects.current)
    return digests


def test_a_listing_has_models_versions_sizes_and_the_time(models, source, url, objects):
    (source / "encoder" / "10").mkdir()
    (source / "encoder" / "10" / "model.plan").write_text("ten")
    models.succeed("push", source, url)
    said = models.succeed("ls", url).splitlines()
    assert re.fullmatch(rf"{url} at {objects.current[:12]}, pushed \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC", said[0])
    assert [line.split() for line in said[1:]] == [
        ["model", "versions", "files", "size"],
        ["README.md", "-", "1", "13", "B"],
        ["detector", "1", "3", "7.8", "KiB"],
        ["encoder", "1,", "10", "3", "7.8", "KiB"],
        ["pipeline", "1", "1", "16", "B"],
        ["together", "8", "15.7", "KiB"],
    ]


def test_the_history_names_every_manifest_and_the_current_one(models, url, three):
    models.succeed("use", url, three[1])
    rows = [line.split() for line in models.succeed("ls", url, "--history").splitlines()[1:]]
    assert {row[0] for row in rows} == {digest[:12] for digest in three}
    assert [row[0] for row in rows if row[-1] == "current"] == [three[1][:12]]


def test_an_older_manifest_is_used_again_by_the_start_of_its_digest(models, url, three, objects, tmp_path):
    said = models.succeed("use", url, three[0][:8].upper())
    assert f"{url} is now at {three[0][:12]}, pushed" in said
    assert objects.current == three[0]
    models.succeed("pull", url, "served")
    assert (tmp_path / "served/current/encoder/1/model.plan").read_text() == "one"


def test_an_unknown_digest_is_told_with_those_there_are(models, url, three, objects):
    done = models.run("use", url, "fffffffffff")
    assert done.returncode == 2
    assert f"error: {url} has no manifest 'fffffffffff'; there is: " in done.stderr
    assert all(digest[:12] in done.stderr for digest in three)
    assert objects.current == three[2]


def test_a_manifest_whose_objects_have_gone_is_not_used(models, url, three, objects):
    for name in objects.names("objects/"):
        if objects.read(name) == b"one":
            objects.remove(name)
    done = models.run("use", url, three[0])
    assert done.returncode == 1
    assert f"{three[0][:12]} can't be used: 1 of its objects have been removed; push its folder again" in done.stderr
    assert objects.current == three[2]


def test_a_prune_keeps_the_newest_and_the_current_one_and_their_objects(models, url, three, objects):
    models.succeed("use", url, three[0])
    before = {name: objects.read(name) for name in objects.names("objects/")}
    assert "would remove 1 of 3 manifests and 1 objects, 3 B" in models.succeed(
        "prune", url, "--keep", "1", "--spare", "0", "--dry-run"
    )
    assert objects.names("objects/") == set(before)
    assert len(objects.names("manifests/")) == 3
    models.succeed("prune", url, "--keep", "1", "--spare", "0")
    kept = {name.removeprefix("manifests/").removesuffix(".json") for name in objects.names("manifests/")}
    assert kept == {three[0], three[2]}
    assert [before[name] for name in set(before) - objects.names("objects/")] == [b"two"]
    for digest in kept:
        models.succeed("use", url, digest)
        models.succeed("pull", url, "served")


def test_a_prune_spares_objects_that_a_push_may_still_need(models, url, three, objects):
    before = objects.names("objects/")
    assert "removed 2 of 3 manifests and 0 objects" in models.succeed("prune", url, "--keep", "1")
    assert objects.names("objects/") == before


def test_a_manifest_that_comes_while_a_prune_looks_keeps_its_objects(models, url, three, objects, monkeypatch):
    """A push of an older version, played after the prune has read the manifests that were there."""
    catalog = Catalog(Store(BucketUrl.parse(url)))
    oldest = f"manifests/{three[0]}.json"
    content, before = objects.read(oldest), objects.names("objects/")
    listed = catalog.objects

    def pushed_meanwhile():
        found = listed()
        objects.write(oldest, content)
        return found

    with monkeypatch.context() as played:
        played.setattr(catalog, "objects", pushed_meanwhile)
        prune(catalog, 1, timedelta(0))
    assert before - objects.names("objects/") == {f"objects/{hashlib.sha256(b'two').hexdigest()}"}
    models.succeed("use", url, three[0])
    models.succeed("pull", url, "served")


def test_a_prune_wants_to_know_how_many_stay(models, url):
    assert models.run("prune", url).stderr == "error: the following arguments are required: --keep\n"
    done = models.run("prune", url, "--keep", "0")
    assert (done.returncode, done.stderr) == (2, "error: argument --keep: 0 is not at least 1\n")


@pytest.mark.parametrize("command", [("ls",), ("ls", "--history"), ("prune", "--keep", "1")])
def test_where_nothing_was_pushed_that_is_told(models, url, command):
    done = models.run(command[0], url, *command[1:])
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {url}: nothing has been pushed there")

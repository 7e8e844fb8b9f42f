"""Listing the pushes of a bucket, returning to one, and removing the old ones."""

import hashlib
import re
from datetime import UTC, datetime, timedelta

import pytest

from serve_app.tools.models.history import prune
from serve_app.tools.models.repository import Pushed, Repository


@pytest.fixture
def three(models, source, plan, url, objects, monkeypatch):
    """Digests of three pushes that differ in one file, oldest first; S3's times are too coarse to order them."""
    digests = []
    for content in ("one", "two", "three"):
        plan.write_text(content)
        models.succeed("push", source, url)
        digests.append(objects.current)
    read = Repository.history

    def in_order(repository):
        times = {digest: datetime(2026, 1, day, tzinfo=UTC) for day, digest in enumerate(digests, 1)}
        found = [Pushed(one.digest, times.get(one.digest, one.at)) for one in read(repository)]
        return sorted(found, key=lambda one: one.at, reverse=True)

    monkeypatch.setattr(Repository, "history", in_order)
    return digests


def test_a_listing_has_models_versions_sizes_and_the_time(models, source, url, objects):
    (source / "encoder" / "10").mkdir()
    (source / "encoder" / "10" / "model.plan").write_text("ten")
    models.succeed("push", source, url)
    lines = models.succeed("ls", url).splitlines()
    assert re.fullmatch(rf"{url} at {objects.current[:12]}, pushed \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC", lines[0])
    assert [line.split() for line in lines[1:]] == [
        ["model", "versions", "files", "size"],
        ["README.md", "-", "1", "13", "B"],
        ["detector", "1", "3", "7.8", "KiB"],
        ["encoder", "1,", "10", "3", "7.8", "KiB"],
        ["pipeline", "1", "1", "16", "B"],
        ["total", "8", "15.7", "KiB"],
    ]


def test_an_older_push_is_used_again_by_the_start_of_its_digest(models, url, three, objects, served):
    assert f"{url} is now at {three[0][:12]}, pushed 2026-01-01" in models.succeed("use", url, three[0][:8].upper())
    assert objects.current == three[0]
    models.succeed("pull", url, served)
    assert (served / "current/encoder/1/model.plan").read_text() == "one"
    rows = [line.split() for line in models.succeed("ls", url, "--history").splitlines()]
    assert [row[0] for row in rows] == ["digest", *(digest[:12] for digest in reversed(three))]
    assert [row[0] for row in rows if row[-1] == "current"] == [three[0][:12]]


def test_use_refuses_unknown_and_incomplete_pushes(models, url, three, objects):
    listed = ", ".join(digest[:12] for digest in reversed(three))
    message = f"error: {url} has no manifest 'ffffffffffff'; available: {listed} (`ls --history` lists all)\n"
    assert models.fail("use", url, "f" * 12, status=2) == message
    for name in objects.names("objects/"):
        if objects.read(name) == b"one":
            objects.remove(name)
    message = f"cannot use {three[0][:12]}: 1 of its objects were removed: push its folder again\n"
    assert models.fail("use", url, three[0]) == f"error: {url}: {message}"
    assert objects.current == three[2]


def test_a_prune_keeps_the_newest_and_the_current_push_and_young_objects(models, url, three, objects, served):
    models.succeed("use", url, three[0])
    before = {name: objects.read(name) for name in objects.names("objects/")}
    keep_one = ("prune", url, "--keep", "1", "--spare", "0")
    assert models.succeed(*keep_one, "--dry-run") == f"{url}: would remove 1 of 3 manifests and 1 objects, 3 B\n"
    assert (objects.names("objects/"), len(objects.manifests)) == (set(before), 3)
    assert "removed 1 of 3 manifests and 0 objects" in models.succeed("prune", url, "--keep", "1")
    assert "removed 0 of 2 manifests and 1 objects" in models.succeed(*keep_one)
    assert objects.manifests == {three[0], three[2]}
    assert [before[name] for name in set(before) - objects.names("objects/")] == [b"two"]
    for digest in objects.manifests:
        models.succeed("use", url, digest)
        models.succeed("pull", url, served)


def test_a_push_during_a_prune_keeps_its_objects(models, url, three, objects, repository, s3, served):
    """A push of the oldest version is played when the prune lists the objects."""
    oldest = f"manifests/{three[0]}.json"
    content, before = objects.read(oldest), objects.names("objects/")
    listings = iter(range(3))

    def push(request):
        if request == f"GET /{objects.bucket}" and next(listings, None) == 2:  # after the history, and what is needed
            objects.write(oldest, content)

    s3.before = push
    prune(repository, 1, timedelta(0))
    (gone,) = before - objects.names("objects/")
    assert gone == f"objects/{hashlib.sha256(b'two').hexdigest()}"
    models.succeed("use", url, three[0])
    models.succeed("pull", url, served)


def test_prune_requires_how_many_to_keep_and_all_commands_a_push(models, url):
    assert models.fail("prune", url, status=2) == "error: the following arguments are required: --keep\n"
    assert models.fail("prune", url, "--keep", "0", status=2) == "error: argument --keep: 0 is not at least 1\n"
    for command, *options in (("ls",), ("ls", "--history"), ("prune", "--keep", "1")):
        assert models.fail(command, url, *options).startswith(f"error: {url}: nothing has been pushed: run"), command

"""What of a folder is pushed, what is uploaded, and what readers see meanwhile."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serve_app.errors import ConfigurationError, UnavailableError
from serve_app.tools.models.bucket import Bucket, BucketUrl
from serve_app.tools.models.push import push
from serve_app.tools.models.repository import Repository

MIB = 1 << 20


def test_a_pull_restores_what_was_pushed(models, source, url, tree, served, objects, tmp_path):
    """Links are followed, executables stay executable, empty folders stay, equal content is stored once."""
    (source / "encoder" / "run").write_text("#!/bin/sh\n")
    (source / "encoder" / "run").chmod(0o755)
    (source / "encoder" / "empty.txt").touch()
    (tmp_path / "blob").write_bytes(b"weights")
    (source / "encoder" / "1" / "weights.bin").symlink_to(tmp_path / "blob")
    (source / "linked").symlink_to(source / "detector")
    models.succeed("push", source, url)
    contents = {path.read_bytes() for path in source.rglob("*") if path.is_file()} - {b""}
    assert len(objects.names("objects/")) == len(contents)

    models.succeed("pull", url, served)
    assert tree(served / "current") == tree(source)
    assert os.access(served / "current" / "encoder" / "run", os.X_OK)
    assert not (served / "current" / "encoder" / "config.pbtxt").stat().st_mode & 0o111
    digest = objects.current
    assert f"is already at {digest[:12]}: nothing changed" in models.succeed("push", "served/current", url)


def test_hidden_and_temporary_files_are_skipped(models, source, write, url, tree, served):
    before = tree(source)
    skipped = (".build.lock", ".git/config", "build.lock", "encoder/1/x.plan.part", "encoder/1/__pycache__/m.pyc")
    write(source, dict.fromkeys(skipped, "x"))
    listed = ".build.lock, .git, build.lock, encoder/1/__pycache__, encoder/1/x.plan.part"
    assert f"skipped hidden and temporary files: {listed}\n" in models.succeed("push", source, url)
    models.succeed("pull", url, served)
    assert tree(served / "current") == before


def test_what_cannot_be_pushed_is_refused_with_its_reason(models, source, url, objects):
    odd = source / "encoder" / "odd"
    for make, message in (
        (lambda: odd.symlink_to("nowhere"), f"{odd} links to nowhere, which does not exist: remove it"),
        (lambda: odd.symlink_to(".."), f"{odd} links to {source}, a folder that contains it: remove the link"),
        (lambda: os.mkfifo(odd), f"{odd} is neither a file nor a folder: remove it"),
    ):
        make()
        assert models.fail("push", source, url, status=2) == f"error: {message}\n"
        odd.unlink()
    (source / "empty" / "1").mkdir(parents=True)
    assert models.fail("push", source / "empty", url, status=2) == f"error: {source}/empty has no files to push\n"
    assert models.fail("push", "nowhere", url, status=2) == "error: nowhere is not a folder\n"
    assert objects.names() == set()


def test_an_unreadable_file_is_named_with_a_faked_denial(repository, source, monkeypatch):
    opened = Path.open

    def refuse(path, *arguments, **options):
        if path.name == "labels.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigurationError, match=r"cannot read .*labels\.txt: permission denied: correct its permis"):
        push(source, repository)


def test_only_missing_chunks_are_uploaded(models, source, plan, url, s3, objects):
    """Of a big file too: 8 MiB make a chunk."""
    content = os.urandom(17 * MIB)
    plan.write_bytes(content)
    assert "5 models" not in (output := models.succeed("push", source, url))
    assert "4 models, 17.0 MiB: 17.0 MiB of 7 files to upload" in output
    before = objects.names("objects/")
    s3.requests.clear()
    plan.write_bytes(content[:-1] + b"x")
    assert "1.0 MiB of 1 file to upload" in models.succeed("push", source, url)
    (fresh,) = objects.names("objects/") - before
    assert [line.rpartition("team/yolo/")[2] for line in s3.asked("PUT", "objects/")] == [fresh]
    assert objects.read(fresh) == content[16 * MIB : -1] + b"x"


def test_a_dry_run_lists_the_files_and_writes_nothing(models, source, url, objects):
    output = models.succeed("push", source, url, "--dry-run")
    assert "would upload detector/1/model.plan (7.8 KiB)\n" in output
    assert output.endswith("; nothing was written\n")
    assert objects.names() == set()


def test_an_object_of_another_size_is_replaced_and_with_force_any(models, source, url, objects):
    models.succeed("push", source, url)
    name = min(objects.names("objects/"))
    good = objects.read(name)
    for spoilt, options in ((b"short", ()), (bytes(len(good)), ("--force",))):
        objects.write(name, spoilt)
        models.succeed("push", source, url, *options)
        assert objects.read(name) == good


def test_a_file_that_changes_during_the_push_is_not_stored(repository, source, plan, objects, s3):
    """It changes between the scan and the upload, which begins with a listing."""

    def change(request):
        if request.startswith("GET"):
            plan.write_bytes(b"changed" * 1000)

    s3.before = change
    with pytest.raises(
        ConfigurationError, match=r"model\.plan changed during the push: push again when nothing writes"
    ):
        push(source, repository)
    assert b"changed" * 1000 not in map(objects.read, objects.names("objects/"))
    assert objects.current is None


def test_a_killed_push_changes_nothing_for_readers_and_the_next_one_continues(
    models, source, plan, url, objects, s3, until, served
):
    models.succeed("push", source, url)
    before, stored = objects.current, objects.names("objects/")
    content = os.urandom(28 * MIB)
    plan.write_bytes(content)
    puts = iter(range(4))
    s3.holds = lambda request: request.startswith("PUT") and next(puts) == 1
    killed = models.start("push", source, url)
    until(lambda: len(objects.names("objects/") - stored) == 3, "the upload of all chunks but one")
    killed.kill()
    killed.wait()
    assert objects.current == before
    models.succeed("pull", url, served)
    assert (served / "current/encoder/1/model.plan").read_bytes() == b"plan two" * 1000

    s3.reset()
    models.succeed("push", source, url)
    assert len(s3.asked("PUT", "objects/")) == 1
    models.succeed("pull", url, served)
    assert (served / "current/encoder/1/model.plan").read_bytes() == content


def test_of_two_concurrent_pushes_both_are_complete_and_one_is_current(models, source, url, objects, tree, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(source, other)
    for folder in (source, other):
        (folder / "encoder" / "1" / "model.plan").write_bytes(os.urandom(3 * MIB))
    repositories = [Repository(Bucket(BucketUrl.parse(url))) for _ in range(2)]
    with ThreadPoolExecutor(2) as pushes:
        digests = set(pushes.map(push, (source, other), repositories))
    assert objects.manifests == digests
    assert objects.current in digests
    found = []
    for digest in digests:
        models.succeed("use", url, digest[:10])
        models.succeed("pull", url, "served")
        found.append(tree(tmp_path / "served" / "current"))
    assert sorted(found, key=str) == sorted([tree(source), tree(other)], key=str)


@pytest.mark.parametrize("always", [False, True], ids=["once", "always"])
def test_chunks_that_a_prune_deletes_during_the_push_are_uploaded_again(repository, source, s3, objects, always):
    """The prune is played: it deletes a chunk when the manifest comes, or before every check after that."""

    def delete(request):
        if "/manifests/" in request or (
            always and s3.asked("PUT", "manifests/") and request == f"GET /{objects.bucket}"
        ):
            s3.before = lambda request: None
            objects.remove(min(objects.names("objects/")))
            s3.before = delete if always else s3.before

    s3.before = delete
    if not always:
        push(source, repository)
        assert len(objects.names("objects/")) == 7
        return
    with pytest.raises(UnavailableError, match="uploaded objects disappear: check whether something else deletes them"):
        push(source, repository)
    assert objects.current is None

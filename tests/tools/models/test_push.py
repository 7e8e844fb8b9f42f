"""What of a folder is pushed, what is uploaded, and what a reader sees while that goes on."""

import hashlib
import os
import shutil
import threading

import pytest
from botocore.exceptions import ClientError

from serve_app.errors import ConfigurationError
from serve_app.tools.models.catalog import Catalog
from serve_app.tools.models.progress import Transfer
from serve_app.tools.models.push import push
from serve_app.tools.models.store import BucketUrl, Store
from serve_app.tools.models.upload import Uploader

MIB = 1 << 20


@pytest.fixture
def catalog(url):
    return Catalog(Store(BucketUrl.parse(url)))


def test_what_was_pushed_is_what_is_pulled(models, source, url, tree, tmp_path):
    (source / "encoder" / "run").write_text("#!/bin/sh\n")
    (source / "encoder" / "run").chmod(0o755)
    models.succeed("push", source, url)
    models.succeed("pull", url, "served")
    assert tree(tmp_path / "served" / "current") == tree(source)
    assert os.access(tmp_path / "served" / "current" / "encoder" / "run", os.X_OK)
    assert not tmp_path.joinpath("served/current/encoder/config.pbtxt").stat().st_mode & 0o111


def test_an_ensembles_empty_version_folder_is_kept(models, source, url, tmp_path):
    models.succeed("push", source, url)
    models.succeed("pull", url, "served")
    assert list((tmp_path / "served/current/pipeline/1").iterdir()) == []


def test_the_same_content_is_stored_once(models, source, url, objects):
    shutil.copytree(source / "detector", source / "twin")
    models.succeed("push", source, url)
    contents = {path.read_bytes() for path in source.rglob("*") if path.is_file()}
    assert len(objects.names("objects/")) == len(contents)


def test_hidden_unfinished_and_cached_files_are_left_out_and_told(models, source, write, url, tree, tmp_path):
    before = tree(source)
    left_out = (".build.lock", ".git/config", "build.lock", "encoder/1/x.plan.part", "encoder/1/__pycache__/m.pyc")
    write(source, dict.fromkeys(left_out, "x"))
    said = models.succeed("push", source, url)
    for name in (".build.lock", ".git", "build.lock", "encoder/1/x.plan.part", "encoder/1/__pycache__"):
        assert name in said
    models.succeed("pull", url, "served")
    assert tree(tmp_path / "served" / "current") == before


def test_links_are_followed(models, source, url, tmp_path):
    (tmp_path / "blob").write_bytes(b"weights")
    (source / "encoder" / "1" / "weights.bin").symlink_to(tmp_path / "blob")
    (source / "linked").symlink_to(source / "detector")
    models.succeed("push", source, url)
    models.succeed("pull", url, "served")
    pulled = tmp_path / "served" / "current"
    assert (pulled / "encoder/1/weights.bin").read_bytes() == b"weights"
    assert (pulled / "linked/labels.txt").read_text() == "cat\ndog\n"


def test_a_folder_that_was_pulled_can_be_pushed(models, source, url, objects):
    models.succeed("push", source, url)
    models.succeed("pull", url, "served")
    digest = objects.current
    assert "nothing changed" in models.succeed("push", "served/current", url)
    assert objects.current == digest


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.symlink_to("nowhere"), "links to nowhere, which isn't there: remove it"),
        (lambda path: path.symlink_to(".."), "a folder above it, and would never end: remove it"),
        (os.mkfifo, "is neither a file nor a folder: remove it"),
    ],
    ids=["dangling link", "circle", "pipe"],
)
def test_what_cannot_be_pushed_is_refused_with_its_reason(models, source, url, objects, make, message):
    make(source / "encoder" / "odd")
    done = models.run("push", source, url)
    assert done.returncode == 2
    assert f"error: {source}/encoder/odd" in done.stderr
    assert message in done.stderr
    assert objects.names() == set()


def test_a_folder_without_files_is_refused(models, tmp_path, url):
    (tmp_path / "empty" / "1").mkdir(parents=True)
    done = models.run("push", "empty", url)
    assert (done.returncode, done.stderr) == (2, "error: empty has no files to push\n")
    done = models.run("push", "nowhere", url)
    assert (done.returncode, done.stderr) == (2, "error: nowhere is no folder\n")


def test_only_what_is_missing_is_uploaded(models, source, url, proxy):
    models.succeed("push", source, url)
    (source / "encoder" / "1" / "model.plan").write_bytes(b"plan three")
    said = models.succeed("push", source, url, AWS_ENDPOINT_URL=proxy.url)
    assert "1 file of 10 B to upload" in said
    assert len([line for line in proxy.lines("PUT ") if b"/objects/" in line]) == 1


def test_a_dry_run_tells_and_writes_nothing(models, source, url, objects):
    said = models.succeed("push", source, url, "--dry-run")
    assert "would upload detector/1/model.plan (7.8 KiB)" in said
    assert "nothing was written" in said
    assert objects.names() == set()


def test_a_forced_push_replaces_an_object_of_the_right_size_and_wrong_content(models, source, url, objects, tmp_path):
    models.succeed("push", source, url)
    name = min(objects.names("objects/"))
    good = objects.read(name)
    objects.write(name, bytes(len(good)))
    models.succeed("push", source, url)
    assert objects.read(name) != good
    models.succeed("push", "--force", source, url)
    assert objects.read(name) == good


def test_a_push_replaces_an_object_of_another_size(models, source, url, objects):
    models.succeed("push", source, url)
    name = min(objects.names("objects/"))
    good = objects.read(name)
    objects.write(name, b"short")
    models.succeed("push", source, url)
    assert objects.read(name) == good


def test_a_big_file_goes_in_parts(catalog, source, objects):
    content = os.urandom(12 * MIB)
    (source / "encoder" / "1" / "model.plan").write_bytes(content)
    push(source, catalog, part=5 * MIB)
    sizes = {name: len(objects.read(name)) for name in objects.names("objects/")}
    big = max(sizes, key=sizes.get)
    assert objects.read(big) == content
    etag = objects.s3.head_object(Bucket=objects.bucket, Key=f"team/yolo/{big}")["ETag"]
    assert etag.endswith('-3"'), "it has three parts"


@pytest.mark.parametrize("whole", [True, False], ids=["with the object", "without"])
def test_an_upload_that_another_push_of_the_same_file_ends_is_no_failure(
    catalog, tmp_path, objects, monkeypatch, whole
):
    """The other one is played between two parts of this one."""
    content = os.urandom(12 * MIB)
    path = tmp_path / "model.plan"
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    store, ended, sent, one_by_one = catalog.store, set(), [], threading.Lock()
    uploaded = store.client.upload_part

    def upload_part(**asked):
        with one_by_one:
            if not ended:
                if whole:
                    objects.write(f"objects/{digest}", content)
                store.client.abort_multipart_upload(**{key: asked[key] for key in ("Bucket", "Key", "UploadId")})
                ended.add(asked["UploadId"])
        if asked["UploadId"] in ended:
            answer = {"Error": {"Code": "NoSuchUpload"}, "ResponseMetadata": {"HTTPStatusCode": 404}}
            raise ClientError(answer, "UploadPart")
        sent.append(asked["PartNumber"])
        return uploaded(**asked)

    monkeypatch.setattr(store.client, "upload_part", upload_part)
    Uploader(store, Transfer("upload", len(content)), 5 * MIB).send({digest: (path, len(content))})
    assert objects.read(f"objects/{digest}") == content
    assert sorted(sent) == ([] if whole else [1, 2, 3])


@pytest.mark.parametrize("part", [5 * MIB, MIB // 2], ids=["whole", "in parts"])
def test_a_file_that_changes_while_it_is_pushed_is_never_stored_under_its_old_sum(catalog, tmp_path, objects, part):
    path = tmp_path / "model.plan"
    path.write_bytes(bytes(MIB))
    with pytest.raises(ConfigurationError, match=r"model\.plan changed while it was pushed: push again"):
        Uploader(catalog.store, Transfer("upload", MIB), part).send({"0" * 64: (path, MIB)})
    assert objects.names() == set()
    assert not objects.uploads()


def test_an_unreadable_file_is_named_with_a_faked_denial(catalog, source, monkeypatch):
    opened = type(source).open

    def refuse(path, *arguments, **options):
        if path.name == "labels.txt":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(type(source), "open", refuse)
    with pytest.raises(ConfigurationError, match=r"labels\.txt can't be read: permission denied; make it readable"):
        push(source, catalog)


def test_a_push_that_is_killed_changes_nothing_for_readers_and_goes_on_from_its_parts(
    models, source, url, objects, proxy, until, tmp_path
):
    models.succeed("push", source, url)
    before = objects.current
    (source / "encoder" / "1" / "model.plan").write_bytes(os.urandom(60 * MIB))
    proxy.hold_request = b"partNumber=3"
    killed = models.start("push", source, url, AWS_ENDPOINT_URL=proxy.url)
    until(lambda: len(objects.parts()) == 3, "the arrival of all parts but one")
    killed.kill()
    killed.wait()
    assert objects.current == before
    models.succeed("pull", url, "served")
    assert (tmp_path / "served/current/encoder/1/model.plan").read_bytes() == b"plan two" * 1000

    proxy.release()
    sent = proxy.up
    models.succeed("push", source, url, AWS_ENDPOINT_URL=proxy.url)
    assert 16 * MIB < proxy.up - sent < 17 * MIB, "the part that was missing"
    assert objects.current != before
    assert not objects.uploads()
    models.succeed("pull", url, "served")
    pulled = tmp_path / "served/current/encoder/1/model.plan"
    assert pulled.read_bytes() == (source / "encoder/1/model.plan").read_bytes()


def test_of_two_pushers_at_once_the_last_to_switch_is_current_and_neither_breaks(
    models, source, url, objects, tree, tmp_path
):
    other = tmp_path / "other"
    shutil.copytree(source, other)
    (other / "encoder" / "1" / "model.plan").write_bytes(os.urandom(3 * MIB))
    (source / "encoder" / "1" / "model.plan").write_bytes(os.urandom(3 * MIB))
    children = [models.start("push", folder, url) for folder in (source, other)]
    assert [child.wait(60) for child in children] == [0, 0], [child.said() for child in children]
    manifests = {name.removeprefix("manifests/").removesuffix(".json") for name in objects.names("manifests/")}
    assert len(manifests) == 2
    assert objects.current in manifests
    found = []
    for digest in sorted(manifests):
        models.succeed("use", url, digest[:10])
        models.succeed("pull", url, "served")
        found.append(tree(tmp_path / "served" / "current"))
    assert sorted(found, key=str) == sorted([tree(source), tree(other)], key=str)

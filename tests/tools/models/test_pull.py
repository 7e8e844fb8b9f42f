"""What a folder holds after a pull, after an interrupted one, and after one that must not switch."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.models import pull
from serve_app.tools.models.pull import Puller
from serve_app.triton.repository import ModelRepository

MIB = 1 << 20
SCRIPT = PROJECT_ROOT / "scripts" / "models"


@pytest.fixture
def pushed(models, source, url):
    models.succeed("push", source, url)
    return source


@pytest.fixture
def big(models, source, plan, url):
    """A repository with a file of four chunks."""
    plan.write_bytes(os.urandom(28 * MIB))
    models.succeed("push", source, url)
    return source


def real(served, model):
    return (served / "current" / model).resolve()


def times(folder):
    """Times of change, which are at least those of modification; Triton looks at both."""
    walk = os.walk(folder, followlinks=True)
    below = [os.path.join(root, name) for root, folders, files in walk for name in (*folders, *files)]
    paths = (folder, *(folder / path for path in below))
    return {str(path.relative_to(folder)): path.stat().st_ctime_ns for path in paths}


def newest(folder):
    return max(times(folder).values())


def test_a_pulled_folder_shows_current_only_can_be_moved_and_is_a_triton_repository(models, pushed, url, served):
    (pushed / "README.md").unlink()
    models.succeed("push", pushed, url)
    models.succeed("pull", url, served)
    assert [entry.name for entry in served.iterdir() if not entry.name.startswith(".")] == ["current"]
    repository = ModelRepository(served.rename(served.with_name("moved")) / "current", ["*"], None)
    assert list(repository.selected) == ["detector", "encoder", "pipeline"]
    assert repository.selected["detector"].config.name == "detector"


def test_unchanged_models_keep_their_folder_and_unchanged_files_their_times(models, pushed, url, served):
    models.succeed("pull", url, served)
    detector, encoder = real(served, "detector"), real(served, "encoder")
    before = {name: times(real(served, name)) for name in ("detector", "encoder")}
    (pushed / "encoder" / "2").mkdir()
    (pushed / "encoder" / "2" / "model.plan").write_bytes(b"plan three")
    models.succeed("push", pushed, url)
    output = models.succeed("pull", url, served)
    assert "1 of 4 models are new or changed: 10 B to download\n" in output
    assert output.endswith(": changed: encoder\n")

    assert real(served, "detector") == detector
    assert times(detector) == before["detector"]
    changed = real(served, "encoder")
    assert changed != encoder
    after = times(changed)
    assert times(encoder) == before["encoder"], "a poll may still look at it"
    for path in ("1", "1/model.plan", "config.pbtxt"):
        assert after[path] == before["encoder"][path], f"{path} hasn't changed"
    assert min(after["."], after["2"]) > max(before["encoder"].values())


def test_a_returning_version_is_newer_than_the_one_it_replaces(models, pushed, plan, url, served, objects):
    """Triton reloads a model that is newer than before, never an older one."""
    models.succeed("pull", url, served)
    first = objects.current
    plan.write_bytes(b"plan three")
    (pushed / "detector" / "labels.txt").write_text("dog\ncat\n")
    models.succeed("push", pushed, url)
    models.succeed("pull", url, served)
    before = {name: newest(real(served, name)) for name in ("detector", "encoder", "pipeline")}
    unchanged = times(real(served, "detector"))["1"]
    models.succeed("use", url, first)
    models.succeed("pull", url, served)
    assert (served / "current/encoder/1/model.plan").read_bytes() == b"plan two" * 1000
    assert times(real(served, "encoder"))["1"] > before["encoder"]
    assert times(real(served, "detector"))["labels.txt"] > before["detector"]
    assert times(real(served, "detector"))["1"] == unchanged
    assert newest(real(served, "pipeline")) == before["pipeline"]


def test_the_previous_snapshot_stays_and_older_ones_go(models, pushed, plan, url, served):
    folders = []
    for content in ("one", "two", "three"):
        plan.write_text(content)
        models.succeed("push", pushed, url)
        models.succeed("pull", url, served)
        folders.append(real(served, "encoder"))
    assert [folder.exists() for folder in folders] == [False, True, True]
    assert (folders[1] / "1/model.plan").read_text() == "two"
    assert len(list((served / ".store").glob("*.json"))) == 2


def test_only_content_that_is_not_in_the_folder_is_downloaded(models, pushed, url, served, s3, tree):
    """Equal content once; nothing the second time; a file that was lost here alone."""
    for name in ("twin", "triplet"):
        shutil.copytree(pushed / "detector", pushed / name)
    models.succeed("push", pushed, url)
    models.succeed("pull", url, served)
    gets = s3.asked("GET", "objects/")
    assert len(gets) == len(set(gets)) == 7
    s3.requests.clear()
    assert "is already at" in models.succeed("pull", url, served)
    assert s3.asked("GET", "objects/") == []
    (real(served, "encoder") / "1/model.plan").unlink()
    models.succeed("pull", url, served)
    assert len(s3.asked("GET", "objects/")) == 1
    assert tree(served / "current") == tree(pushed)


def test_a_killed_pull_switches_nothing_and_the_next_one_continues(models, big, url, served, s3, until, tree):
    gets = iter(range(100))
    s3.holds = lambda request: "/objects/" in request and next(gets) == 1
    killed = models.start("pull", url, served)
    until(lambda: s3.held and sum(path.stat().st_blocks * 512 for path in served.rglob("*")) >= 20 * MIB, "the middle")
    killed.kill()
    killed.wait()
    assert not os.path.lexists(served / "current")
    s3.reset()
    (spoilt,) = (path for path in (served / ".pull").rglob("labels.txt-*") if path.is_file())
    spoilt.write_bytes(b"rubbish")
    models.succeed("pull", url, served)
    assert len(s3.asked("GET", "objects/")) <= 4, "what was on its way, and what is corrupt here"
    assert tree(served / "current") == tree(big)
    assert list((served / ".pull" / "unfinished").iterdir()) == []


def test_a_broken_response_is_requested_again(models, big, url, served, s3, tree, monkeypatch):
    monkeypatch.setattr("serve_app.tools.models.transfer.FIRST_PAUSE_S", 0)
    breaks = iter([True])
    s3.breaks = lambda request: "/objects/" in request and next(breaks, False)
    output = models.succeed("pull", url, served)
    assert "broke; trying again in 0 s" in output
    assert tree(served / "current") == tree(big)
    s3.breaks = lambda request: "/objects/" in request
    assert "the connection to 127.0.0.1:" in models.fail("pull", url, "other")


def test_a_corrupt_object_is_tried_twice_then_named_and_nothing_is_switched(
    models, pushed, plan, url, served, objects, s3, tree
):
    models.succeed("pull", url, served)
    before = tree(served / "current")
    plan.write_bytes(b"plan three" * 1000)
    old = objects.names("objects/")
    models.succeed("push", pushed, url)
    (fresh,) = objects.names("objects/") - old
    good = objects.read(fresh)
    for spoilt in (b"x" + good[1:], good[:-1], good + b"x", b""):
        objects.write(fresh, spoilt)
        s3.requests.clear()
        status, output, errors = models.run("pull", url, served)
        assert status == 1
        assert f"{url}/{fresh} (encoder/1/model.plan): wrong checksum, downloading it again\n" in output
        assert f"error: {url}/{fresh} (encoder/1/model.plan) is corrupt: its checksum is wrong" in errors
        assert f"`scripts/models push --force FOLDER {url}`" in errors
        assert len(s3.asked("GET", fresh)) == 2
        assert tree(served / "current") == before
    models.succeed("push", "--force", pushed, url)
    models.succeed("pull", url, served)
    assert tree(served / "current") == tree(pushed)


def test_a_repository_that_cannot_be_read_is_refused_with_the_fix(models, pushed, url, served, objects, tmp_path):
    digest, good = objects.current, objects.read(f"manifests/{objects.current}.json")

    def push_manifest(change):
        document = json.loads(good)
        change(document)
        content = json.dumps(document).encode()
        objects.write(f"manifests/{hashlib.sha256(content).hexdigest()}.json", content)
        objects.write("current", json.dumps({"manifest": hashlib.sha256(content).hexdigest()}).encode())

    for path in ("../../escaped", "/escaped", "1//x", "a/./b"):
        push_manifest(lambda document, path=path: document["files"][1].update(path=path))
        assert f"{path!r} is not a path inside the repository): push again" in models.fail("pull", url, served)
    push_manifest(lambda document: document["files"].append(document["files"][0]))
    assert "'README.md' is listed twice, or as a file and a folder" in models.fail("pull", url, served)
    push_manifest(lambda document: document["files"][0].update(size=10**9))
    assert "'README.md' has 1 chunks for 1000000000 bytes" in models.fail("pull", url, served)
    push_manifest(lambda document: document.update(format=1))
    assert "(format: Input should be 2): push again, or use the release" in models.fail("pull", url, served)
    assert not list(tmp_path.rglob("escaped"))

    objects.write("current", json.dumps({"manifest": digest}).encode())
    objects.write(f"manifests/{digest}.json", good[:-1])
    assert f"error: {url}/manifests/{digest}.json is corrupt: push again" in models.fail("pull", url, served)
    objects.write(f"manifests/{digest}.json", good)
    name = min(objects.names("objects/"))
    objects.remove(name)
    errors = models.fail("pull", url, served)
    assert f"error: {url}/{name} (" in errors
    assert "no longer exists: push again, or run `scripts/models use` to return to another push" in errors
    objects.write("current", b'{"manifest": "nonsense"}')
    assert f"error: {url}/current is corrupt: push again" in models.fail("pull", url, served)
    assert not os.path.lexists(served / "current")


@pytest.mark.parametrize("killed", [False, True], ids=["first ends", "first is killed"])
def test_a_second_pull_into_a_folder_waits_for_the_first(models, big, url, served, s3, until, tree, killed):
    gets = iter(range(100))
    s3.holds = lambda request: "/objects/" in request and next(gets) == 2
    first = models.start("pull", url, served)
    until(lambda: s3.held, "the middle of the first download")
    second = models.start("pull", url, served)
    until(lambda: f"another pull is writing to {served}: waiting\n" in second.output(), "the second's waiting")
    if killed:
        first.kill()
    s3.release()
    assert (first.wait(60), second.wait(60)) == (-9 if killed else 0, 0), first.output() + second.output()
    assert killed or any(words in second.output() for words in ("another pull installed it", "is already at"))
    assert tree(served / "current") == tree(big)


def test_a_folder_that_is_not_for_pulls_is_refused(models, url, served, tmp_path):
    (served / "current").mkdir(parents=True)
    errors = models.fail("pull", url, served)
    assert f"error: {served}/current was not made by a pull: pull into another folder, or remove it" in errors
    (tmp_path / "file").write_text("")
    errors = models.fail("pull", url, tmp_path / "file" / "served")
    assert f"{tmp_path}/file/served must be a folder that this user can write to" in errors


def test_a_pull_needs_no_root_and_writes_to_its_folder_only(models, pushed, url, served, tree):
    """As in a pod: a user without a name, and all but the folder mounted read-only."""
    served.mkdir()
    os.chown(served, 1000, 100)
    # Only root may read where this Python is, so this user may read everything.
    user = "--reuid 1000 --regid 100 --clear-groups --inh-caps -all,+dac_read_search --ambient-caps +dac_read_search"
    mounts = f"mount --bind {served} {served} && mount -o remount,bind,ro / && touch /read-only 2>/dev/null"
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f"({mounts}) && exit 99; exec setpriv {user} {sys.executable} {SCRIPT} pull {url} {served}",
        ],
        env=os.environ | {"HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"mounting needs root: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert tree(served / "current") == tree(pushed)
    assert (served / "current" / "encoder").resolve().stat().st_uid == 1000


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 32 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting needs root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_the_disk_must_have_room_and_the_previous_snapshot_makes_it(models, source, plan, url, small_disk, s3):
    for _ in range(4):  # of 6 MiB each: with the margin, a third snapshot doesn't fit
        plan.write_bytes(os.urandom(6 * MIB))
        models.succeed("push", source, url)
        models.succeed("pull", url, small_disk)
        assert (small_disk / "current" / "encoder" / "1" / "model.plan").read_bytes() == plan.read_bytes()
    plan.write_bytes(os.urandom(40 * MIB))
    models.succeed("push", source, url)
    s3.requests.clear()
    errors = models.fail("pull", url, small_disk)
    assert re.match(rf"error: {small_disk} has 2\d\.\d MiB free, and ", errors)
    assert "needs 56.0 MiB: use a larger disk (in a pod, raise the volume's sizeLimit), or push less" in errors
    assert s3.asked("GET", "objects/") == []


def test_a_disk_that_fills_up_during_the_pull_is_named(models, source, plan, url, repository, small_disk, monkeypatch):
    """The free space is faked: the check before the download passes."""
    plan.write_bytes(os.urandom(40 * MIB))
    models.succeed("push", source, url)
    monkeypatch.setattr(pull, "_fits", lambda path, snapshot: True)
    with pytest.raises(ConfigurationError, match=f"the disk of {small_disk} is full: use a larger one"):
        Puller(repository, small_disk).pull()
    assert not os.path.lexists(small_disk / "current")

"""Where a pull may write, and what becomes of it on a disk that is too small."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.errors import ConfigurationError
from serve_app.tools.models import pull as pulling
from serve_app.tools.models.catalog import Catalog
from serve_app.tools.models.pull import Following, Puller
from serve_app.tools.models.store import BucketUrl, Store

MIB = 1 << 20
SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "models"


def test_a_folder_that_no_pull_made_is_left_alone(models, url, served):
    (served / "current").mkdir(parents=True)
    done = models.run("pull", url, served)
    assert done.returncode == 1
    assert f"error: {served}/current is not a link that a pull made: pull into another folder" in done.stderr


def test_a_folder_that_cannot_be_written_is_told(models, url, tmp_path):
    (tmp_path / "file").write_text("")
    done = models.run("pull", url, tmp_path / "file" / "served")
    assert done.returncode == 1
    assert "must be a folder that this user can write to" in done.stderr


def test_a_pull_needs_no_root_and_writes_to_its_folder_alone(models, source, url, served, tree):
    """As in a pod: a user without a name, all but the folder mounted read-only."""
    models.succeed("push", source, url)
    served.mkdir()
    os.chown(served, 1000, 100)
    # Nobody else may read where this Python lies, so that reading is allowed, and only that.
    user = "--reuid 1000 --regid 100 --clear-groups --inh-caps -all,+dac_read_search --ambient-caps +dac_read_search"
    here = f"mount --bind {served} {served} && mount -o remount,bind,ro / && touch /read-only 2>/dev/null"
    command = f"{sys.executable} {SCRIPT} pull {url} {served}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"({here}) && exit 99; exec setpriv {user} {command}"],
        env=os.environ | {"HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"only root can take rights away here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert tree(served / "current") == tree(source)
    assert (served / "current" / "encoder").resolve().stat().st_uid == 1000


@pytest.fixture
def small_disk(tmp_path):
    """32 MiB that are really all there is."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can only be mounted by root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_disk_without_room_is_told_before_anything_is_fetched(models, source, url, small_disk, proxy):
    (source / "encoder" / "1" / "model.plan").write_bytes(os.urandom(40 * MIB))
    models.succeed("push", source, url)
    done = models.run("pull", url, small_disk, AWS_ENDPOINT_URL=proxy.url)
    assert done.returncode == 1
    assert f"error: {small_disk} has 32.0 MiB free, and" in done.stderr
    assert "needs 56.0 MiB more: give it a larger disk" in done.stderr
    assert not [line for line in proxy.lines("GET ") if b"/objects/" in line]


def test_the_snapshot_before_makes_room_where_it_must(models, source, url, small_disk):
    for _ in range(4):  # of 6 MiB each: with the margin, no third one has room
        (source / "encoder" / "1" / "model.plan").write_bytes(os.urandom(6 * MIB))
        models.succeed("push", source, url)
        models.succeed("pull", url, small_disk)
        pulled = small_disk / "current" / "encoder" / "1" / "model.plan"
        assert pulled.read_bytes() == (source / "encoder" / "1" / "model.plan").read_bytes()


def test_a_disk_that_fills_up_on_the_way_is_told_with_faked_free_space(models, source, url, small_disk, monkeypatch):
    (source / "encoder" / "1" / "model.plan").write_bytes(os.urandom(40 * MIB))
    models.succeed("push", source, url)
    monkeypatch.setattr(pulling, "_lacks_room", lambda folder, builder: False)
    puller = Puller(Catalog(Store(BucketUrl.parse(url))), small_disk, Following())
    with pytest.raises(ConfigurationError, match=f"the disk of {small_disk} is full: give it a larger one"):
        puller.once()
    assert not os.path.lexists(small_disk / "current")

"""What a folder holds after a pull, after one that was interrupted, and after one that must not switch."""

import hashlib
import json
import os
import shutil

import pytest

from serve_app.triton.repository import ModelRepository

MIB = 1 << 20


@pytest.fixture
def pushed(models, source, url):
    models.succeed("push", source, url)
    return source


@pytest.fixture
def big(models, source, url):
    """A repository with a file that takes a while."""
    (source / "encoder" / "1" / "model.plan").write_bytes(os.urandom(12 * MIB))
    models.succeed("push", source, url)
    return source


def real(served, model):
    return (served / "current" / model).resolve()


def times(folder):
    """Of change, which are later than those of modification; Triton looks at both."""
    paths = (folder, *(folder / path for path in tree_below(folder)))
    return {str(path.relative_to(folder)): path.stat().st_ctime_ns for path in paths}


def tree_below(folder):
    walk = os.walk(folder, followlinks=True)
    return [os.path.join(root, name) for root, folders, files in walk for name in (*folders, *files)]


def newest(folder):
    return max(times(folder).values())


def test_nothing_but_current_is_in_sight_and_all_links_are_relative(models, pushed, url, served):
    models.succeed("pull", url, served)
    assert [entry.name for entry in served.iterdir() if not entry.name.startswith(".")] == ["current"]
    moved = served.rename(served.with_name("moved"))
    assert (moved / "current/detector/labels.txt").read_text() == "cat\ndog\n"


def test_triton_reads_what_was_pulled(models, pushed, url, served):
    (pushed / "README.md").unlink()
    models.succeed("push", pushed, url)
    models.succeed("pull", url, served)
    repository = ModelRepository(served / "current", ["*"], None)
    assert list(repository.selected) == ["detector", "encoder", "pipeline"]
    assert repository.selected["detector"].config.name == "detector"


def test_unchanged_models_keep_their_folder_and_unchanged_files_their_times(models, pushed, url, served):
    models.succeed("pull", url, served)
    detector, encoder = real(served, "detector"), real(served, "encoder")
    before = {name: times(real(served, name)) for name in ("detector", "encoder")}
    (pushed / "encoder" / "2").mkdir()
    (pushed / "encoder" / "2" / "model.plan").write_bytes(b"plan three")
    models.succeed("push", pushed, url)
    assert "changed: encoder" in models.succeed("pull", url, served)

    assert real(served, "detector") == detector
    assert times(detector) == before["detector"]
    changed = real(served, "encoder")
    assert changed != encoder
    assert (changed / "1/model.plan").samefile(encoder / "1/model.plan")
    after = times(changed)
    assert times(encoder) == before["encoder"], "of what a poll may still look at"
    for path in ("1", "1/model.plan", "config.pbtxt"):
        assert after[path] == before["encoder"][path], f"{path} hasn't changed"
    assert after["."] > max(before["encoder"].values())
    assert after["2"] > max(before["encoder"].values())


def test_what_comes_back_is_newer_than_what_it_replaces(models, pushed, url, served, objects):
    """Triton loads a model again when it is newer than before, and never when it is older."""
    models.succeed("pull", url, served)
    first = objects.current
    (pushed / "encoder" / "1" / "model.plan").write_bytes(b"plan three")
    (pushed / "detector" / "labels.txt").write_text("dog\ncat\n")
    models.succeed("push", pushed, url)
    models.succeed("pull", url, served)
    before = {name: newest(real(served, name)) for name in ("detector", "encoder", "pipeline")}
    plan = times(real(served, "detector"))["1"]
    models.succeed("use", url, first)
    models.succeed("pull", url, served)
    assert (served / "current/encoder/1/model.plan").read_bytes() == b"plan two" * 1000
    assert times(real(served, "encoder"))["1"] > before["encoder"]
    assert times(real(served, "detector"))["labels.txt"] > before["detector"]
    assert times(real(served, "detector"))["1"] == plan
    assert newest(real(served, "pipeline")) == before["pipeline"]


def test_the_snapshot_before_stays_and_older_ones_go(models, pushed, url, served):
    folders = []
    for content in ("one", "two", "three"):
        (pushed / "encoder" / "1" / "model.plan").write_text(content)
        models.succeed("push", pushed, url)
        models.succeed("pull", url, served)
        folders.append(real(served, "encoder"))
    assert [folder.exists() for folder in folders] == [False, True, True]
    assert (folders[1] / "1/model.plan").read_text() == "two"
    assert len(list((served / ".snapshots").iterdir())) == 2
    assert list((served / ".pull/objects").iterdir()) == []


def test_a_second_pull_has_nothing_to_do(models, pushed, url, served, proxy):
    models.succeed("pull", url, served)
    said = models.succeed("pull", url, served, AWS_ENDPOINT_URL=proxy.url)
    assert "already" in said
    assert not [line for line in proxy.lines("GET ") if b"/objects/" in line]


def test_a_file_that_was_lost_here_is_fetched_again_alone(models, pushed, url, served, tree, proxy):
    models.succeed("pull", url, served)
    (real(served, "encoder") / "1/model.plan").unlink()
    models.succeed("pull", url, served, AWS_ENDPOINT_URL=proxy.url)
    assert tree(served / "current") == tree(pushed)
    assert len([line for line in proxy.lines("GET ") if b"/objects/" in line]) == 1


def test_content_that_several_models_have_is_fetched_once(models, pushed, url, served, proxy, tree):
    for name in ("twin", "triplet"):
        shutil.copytree(pushed / "detector", pushed / name)
    models.succeed("push", pushed, url)
    models.succeed("pull", url, served, AWS_ENDPOINT_URL=proxy.url)
    gets = [line for line in proxy.lines("GET ") if b"/objects/" in line]
    assert len(gets) == len(set(gets)) == 7
    assert tree(served / "current") == tree(pushed)


def test_a_pull_that_is_killed_switches_nothing_and_is_resumed_where_it_ended(
    models, big, url, served, proxy, until, tree
):
    proxy.hold_down_after = 5 * MIB
    killed = models.start("pull", url, served, AWS_ENDPOINT_URL=proxy.url)
    until(lambda: proxy.holding, "the middle of the download")
    parts = served / ".pull" / "objects"
    until(lambda: any(part.stat().st_size >= 2 * MIB for part in parts.glob("*.part")), "a part on the disk")
    killed.kill()
    killed.wait()
    assert not os.path.lexists(served / "current")
    there = max(part.stat().st_size for part in parts.glob("*.part"))
    proxy.cut()
    proxy.release()
    down = proxy.down
    models.succeed("pull", url, served, AWS_ENDPOINT_URL=proxy.url)
    assert proxy.lines("Range:") == [b"Range: bytes=%d-\r" % there]
    assert proxy.down - down < 12 * MIB - there + MIB
    assert tree(served / "current") == tree(big)
    assert list(parts.iterdir()) == []


def test_a_connection_that_breaks_off_is_taken_up_again(models, big, url, served, proxy, tree):
    proxy.cut_down_after = 5 * MIB
    said = models.succeed("pull", url, served, AWS_ENDPOINT_URL=proxy.url)
    assert "broke off; going on" in said
    assert proxy.lines("Range:")
    assert tree(served / "current") == tree(big)


def corrupted(content):
    return bytes([content[0] ^ 1]) + content[1:]


@pytest.mark.parametrize(
    "spoil",
    [corrupted, lambda content: content[:-1], lambda content: content + b"x", lambda content: b""],
    ids=["a changed byte", "too short", "too long", "empty"],
)
def test_a_corrupt_object_is_tried_twice_then_named_and_nothing_is_switched(
    models, pushed, url, served, objects, proxy, tree, spoil
):
    models.succeed("pull", url, served)
    before = tree(served / "current")
    (pushed / "encoder" / "1" / "model.plan").write_bytes(b"plan three" * 1000)
    old = objects.names("objects/")
    models.succeed("push", pushed, url)
    (fresh,) = objects.names("objects/") - old
    good = objects.read(fresh)
    objects.write(fresh, spoil(good))
    done = models.run("pull", url, served, AWS_ENDPOINT_URL=proxy.url)
    assert done.returncode == 1
    assert f"error: {url}/{fresh} (encoder/1/model.plan) is corrupt" in done.stderr
    assert f"scripts/models push --force FOLDER {url}" in done.stderr
    assert "trying once more" in done.stdout
    assert len([line for line in proxy.lines("GET ") if fresh.encode() in line]) == 2
    assert tree(served / "current") == before

    models.succeed("push", "--force", pushed, url)
    models.succeed("pull", url, served)
    assert tree(served / "current") == tree(pushed)


def test_a_part_that_is_corrupt_here_is_fetched_again_from_its_start(models, pushed, url, served, objects, tree):
    parts = served / ".pull" / "objects"
    parts.mkdir(parents=True)
    for name in objects.names("objects/"):
        (parts / f"{name.removeprefix('objects/')}.part").write_bytes(b"rubbish")
    assert "trying once more" in models.succeed("pull", url, served)
    assert tree(served / "current") == tree(pushed)


def test_an_object_that_has_gone_is_named(models, pushed, url, served, objects):
    name = min(objects.names("objects/"))
    objects.remove(name)
    done = models.run("pull", url, served)
    assert done.returncode == 1
    assert f"error: {url}/{name}" in done.stderr
    assert "isn't there any more: push again, or `use` another manifest" in done.stderr
    assert not os.path.lexists(served / "current")


@pytest.mark.parametrize("path", ["../../escaped", "/escaped", "1//x", "a/./b"])
def test_a_manifest_that_leads_out_of_the_folder_is_refused(models, pushed, url, served, objects, path, tmp_path):
    name = f"manifests/{objects.current}.json"
    manifest = json.loads(objects.read(name))
    manifest["models"][1]["files"][0]["path"] = path
    content = json.dumps(manifest).encode()
    digest = hashlib.sha256(content).hexdigest()
    objects.write(f"manifests/{digest}.json", content)
    objects.write("current", json.dumps({"manifest": digest}).encode())
    done = models.run("pull", url, served)
    assert done.returncode == 1
    assert f"manifests/{digest}.json is no manifest that can be read here" in done.stderr
    assert "is no path inside a model" in done.stderr
    assert not list(tmp_path.rglob("escaped"))


def test_a_corrupt_manifest_is_named(models, pushed, url, served, objects):
    name = f"manifests/{objects.current}.json"
    objects.write(name, objects.read(name)[:-1])
    done = models.run("pull", url, served)
    assert (done.returncode, f"error: {url}/{name} is corrupt: push again" in done.stderr) == (1, True)


def test_a_current_that_names_nothing_is_told(models, pushed, url, served, objects):
    objects.write("current", b'{"manifest": "nonsense"}')
    done = models.run("pull", url, served)
    assert (done.returncode, f"error: {url}/current names no manifest" in done.stderr) == (1, True)


def test_two_pulls_into_one_folder_go_one_after_the_other(models, big, url, served, proxy, until, tree):
    proxy.hold_down_after = 5 * MIB
    first = models.start("pull", url, served, AWS_ENDPOINT_URL=proxy.url)
    until(lambda: proxy.holding, "the middle of the first download")
    second = models.start("pull", url, served)
    until(lambda: "another pull works in" in second.said(), "the second's waiting")
    proxy.release()
    assert (first.wait(60), second.wait(60)) == (0, 0), first.said() + second.said()
    assert "another pull brought it" in second.said() or "already" in second.said()
    assert tree(served / "current") == tree(big)


def test_a_pull_takes_over_from_one_that_is_killed(models, big, url, served, proxy, until, tree):
    proxy.hold_down_after = 5 * MIB
    first = models.start("pull", url, served, AWS_ENDPOINT_URL=proxy.url)
    until(lambda: proxy.holding, "the middle of the first download")
    second = models.start("pull", url, served)
    until(lambda: "another pull works in" in second.said(), "the second's waiting")
    first.kill()
    assert second.wait(60) == 0, second.said()
    assert tree(served / "current") == tree(big)

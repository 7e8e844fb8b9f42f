"""Plans on disk with a fake TensorRT: built once, by one process, for what they are for, and never half."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time

import onnx
import pytest

from serve_app.errors import ConfigurationError, ModelLoadError
from serve_app.triton.plans import Gpu, PlanCache, Profile

H100 = Gpu("NVIDIA H100 80GB HBM3", (9, 0))
L4 = Gpu("NVIDIA L4", (8, 9))
VERSION = "10.14.1.48"
PROFILE = Profile(1, 4, 8)

PROGRAM = """
import sys
from pathlib import Path
from serve_app.triton.plans import Gpu, PlanCache, Profile

cache = PlanCache(Path(sys.argv[1]), Gpu("NVIDIA H100 80GB HBM3", (9, 0)), "10.14.1.48")
print(cache.plan_for(Path(sys.argv[2]), Profile(1, 4, 8), lambda line: print(line, flush=True), "yolo_tiny"))
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "plans"


@pytest.fixture
def cache(fake, folder):
    return PlanCache(folder, H100, VERSION)


def plan_of(cache, graph, profile=PROFILE):
    lines = []
    return cache.plan_for(graph, profile, lines.append, "yolo_tiny"), lines


def other_process(folder, graph):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, folder, graph], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_builder(fake, limit_s=30):
    deadline = time.monotonic() + limit_s
    while not fake.builders():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def left_in(cache):
    """All that is there but locks, which stay on purpose."""
    return sorted(path.name for path in cache.folder.iterdir() if path.suffix != ".lock")


def test_fake_a_plan_is_built_and_told_and_the_second_call_builds_nothing(fake, cache, graph, folder):
    plan, lines = plan_of(cache, graph)
    assert plan.parent == folder / "nvidia-h100-80gb-hbm3-sm90-trt10.14.1.48"
    assert plan.read_bytes().startswith(b"plan of ")
    first, last = lines
    assert first == (
        "yolo_tiny: building its plan for NVIDIA H100 80GB HBM3 with TensorRT 10.14.1.48, once; takes minutes"
    )
    assert re.fullmatch(r"yolo_tiny: built in \d+ s", last)
    assert plan_of(cache, graph) == (plan, [])
    assert len(fake.builders()) == 1
    assert left_in(cache) == sorted([plan.name, f"{plan.stem}.json", "timing.cache"])


def test_fake_the_card_says_what_the_plan_is(cache, graph):
    plan, _ = plan_of(cache, graph)
    card = json.loads(plan.with_suffix(".json").read_text())
    assert card.pop("took_s") >= 0
    assert card == {
        "graph": "yolo_tiny",
        "batches": [1, 4, 8],
        "gpu": "NVIDIA H100 80GB HBM3",
        "capability": [9, 0],
        "tensorrt": "10.14.1.48",
        "size_bytes": plan.stat().st_size,
        "sha256": hashlib.sha256(plan.read_bytes()).hexdigest(),
    }


@pytest.mark.parametrize("other", ["gpu", "tensorrt", "graph", "profile"])
def test_fake_another_gpu_tensorrt_graph_or_profile_has_a_plan_of_its_own(fake, cache, graph, folder, graph_of, other):
    plan, _ = plan_of(cache, graph)
    profile = PROFILE
    if other == "gpu":
        cache = PlanCache(folder, L4, VERSION)
    elif other == "tensorrt":
        cache = PlanCache(folder, H100, "11.0.0.12")
    elif other == "graph":
        graph = graph.with_name("other.onnx")
        onnx.save(graph_of(("images", ["batch", 3, 64, 64])), graph)
    else:
        profile = Profile(1, 4, 16)
    second, _ = plan_of(cache, graph, profile)
    assert second != plan
    assert len(fake.builders()) == 2
    assert plan.exists()


def test_fake_the_same_graph_in_another_place_needs_no_other_plan(fake, cache, graph, tmp_path):
    plan, _ = plan_of(cache, graph)
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(graph.read_bytes())
    assert plan_of(cache, copy) == (plan, [])


def test_fake_builds_of_one_folder_share_their_timings(fake, cache, graph):
    plan_of(cache, graph)
    plan_of(cache, graph, Profile(1, 1, 1))
    assert (cache.folder / "timing.cache").read_bytes() == b"+timings+timings"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda plan: plan.write_bytes(plan.read_bytes()[:-1]),
        lambda plan: plan.write_bytes(b"X" + plan.read_bytes()[1:]),
        lambda plan: plan.unlink(),
        lambda plan: plan.with_suffix(".json").write_text(plan.with_suffix(".json").read_text()[:20]),
        lambda plan: plan.with_suffix(".json").write_text("[]"),
        lambda plan: plan.with_suffix(".json").write_text("{}"),
        lambda plan: plan.with_suffix(".json").write_bytes(b"\xff"),
        lambda plan: plan.with_suffix(".json").unlink(),
    ],
    ids=["plan cut off", "plan changed", "no plan", "card cut off", "card a list", "card empty", "no text", "no card"],
)  # fmt: skip
def test_fake_what_is_not_whole_is_built_again(fake, cache, graph, spoil):
    plan, _ = plan_of(cache, graph)
    whole = plan.read_bytes()
    spoil(plan)
    assert plan_of(cache, graph)[0] == plan
    assert plan.read_bytes() == whole
    assert len(fake.builders()) == 2
    assert plan_of(cache, graph)[1] == []


def test_fake_a_build_that_fails_leaves_nothing_and_the_next_may_succeed(fake, cache, graph):
    fake.behave(build="abort")
    with pytest.raises(ModelLoadError, match="TensorRT can't build yolo_tiny: its process was ended by SIGABRT"):
        plan_of(cache, graph)
    assert left_in(cache) == []
    fake.behave()
    assert plan_of(cache, graph)[0].exists()


def test_fake_two_processes_at_once_build_once_and_the_second_says_that_it_waits(fake, graph, folder, tmp_path):
    fake.behave(until=str(tmp_path / "both"))
    first = other_process(folder, graph)
    wait_for_builder(fake)
    second = other_process(folder, graph)
    assert second.stdout.readline() == "yolo_tiny: waiting for the process that builds plans\n"
    (tmp_path / "both").touch()
    built, waited = (process.communicate(timeout=60)[0].splitlines() for process in (first, second))
    assert [first.returncode, second.returncode] == [0, 0]
    assert len(fake.builders()) == 1
    assert built[-2].startswith("yolo_tiny: built in ")
    assert waited == built[-1:]


def test_fake_processes_that_start_at_the_same_moment_build_once(fake, graph, folder):
    processes = [other_process(folder, graph) for _ in range(4)]
    plans = {process.communicate(timeout=60)[0].splitlines()[-1] for process in processes}
    assert len(plans) == len(fake.builders()) == 1


def test_fake_whoever_waited_for_a_build_that_failed_builds_itself(fake, graph, folder, cache, tmp_path):
    fake.behave(build="fail", until=str(tmp_path / "waited for"))
    first = other_process(folder, graph)
    wait_for_builder(fake)
    fake.behave()
    lines = []

    def report(line):
        lines.append(line)
        (tmp_path / "waited for").touch()

    plan = cache.plan_for(graph, PROFILE, report, "yolo_tiny")
    assert lines[0] == "yolo_tiny: waiting for the process that builds plans"
    assert lines[-1].startswith("yolo_tiny: built in ")
    assert plan.exists()
    assert "ModelLoadError" in first.communicate(timeout=60)[1]


def test_fake_what_a_killed_process_left_is_cleared_by_the_next(fake, graph, folder, cache):
    fake.behave(until="never")
    first = other_process(folder, graph)
    wait_for_builder(fake)
    (builder,) = fake.builders()
    first.kill()
    first.communicate()
    os.kill(builder, 9)
    assert len(left_in(cache)) == 1
    fake.behave()
    plan, _ = plan_of(cache, graph)
    assert left_in(cache) == sorted([plan.name, f"{plan.stem}.json", "timing.cache"])


def test_fake_a_plan_in_a_folder_that_is_read_only_is_used_and_nothing_written(fake, cache, graph):
    plan, _ = plan_of(cache, graph)
    for lock in cache.folder.glob("*.lock"):
        lock.unlink()
    before = sorted(cache.folder.iterdir())
    cache.folder.chmod(0o555)
    try:
        assert plan_of(cache, graph) == (plan, [])
        assert sorted(cache.folder.iterdir()) == before
    finally:
        cache.folder.chmod(0o755)


def test_a_folder_that_can_not_be_written_and_lacks_the_plan_is_named(fake, graph, tmp_path):
    (tmp_path / "file").write_text("no folder")
    cache = PlanCache(tmp_path / "file" / "plans", H100, VERSION)
    with pytest.raises(ConfigurationError) as error:
        plan_of(cache, graph)
    assert str(error.value) == (
        f"{cache.folder} has no TensorRT plan of yolo_tiny and none can be written there (Not a directory): make it "
        "writable, or build the plan before"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder_that_lacks_the_plan_is_named(fake, graph, folder, cache):
    folder.mkdir(mode=0o555)
    with pytest.raises(ConfigurationError, match=r"none can be written there \(Permission denied\)"):
        plan_of(cache, graph)


def test_a_graph_that_is_not_there_is_named(cache, tmp_path):
    with pytest.raises(ModelLoadError, match=r"graph .*nowhere\.onnx can't be read: No such file or directory"):
        plan_of(cache, tmp_path / "nowhere.onnx")


def test_fake_without_a_name_a_graph_is_called_as_its_file(cache, graph):
    lines = []
    cache.plan_for(graph, PROFILE, lines.append)
    assert lines[-1].startswith("yolo_tiny.onnx: built in ")


def test_fake_paths_may_be_relative(cache, graph, folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    relative = PlanCache(folder.relative_to(folder.parent), H100, VERSION)
    plan, _ = plan_of(relative, graph.relative_to(folder.parent))
    assert plan.resolve() == plan_of(cache, graph)[0]

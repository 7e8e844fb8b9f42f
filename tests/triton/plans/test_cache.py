"""Plans on disk, built by a fake TensorRT: once, by one process, and never incomplete."""

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
from serve_app.triton.plans import Gpu, LocalPlans, PlanCache, Profile, cache, find_gpu

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
def plans(fake, folder):
    return PlanCache(folder, H100, VERSION)


def plan_of(plans, graph, profile=PROFILE):
    lines = []
    return plans.plan_for(graph, profile, lines.append, "yolo_tiny"), lines


def other_process(folder, graph):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, folder, graph], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_builder(fake, limit_s=30):
    deadline = time.monotonic() + limit_s
    while not fake.builders():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def left_in(plans):
    """All files but locks, which stay on purpose."""
    return sorted(path.name for path in plans.folder.iterdir() if path.suffix != ".lock")


def test_a_plan_is_built_once_with_a_fake_tensorrt_and_found_again_by_the_content_of_its_graph(
    fake, plans, graph, folder, tmp_path, monkeypatch
):
    plan, (first, last) = plan_of(plans, graph)
    assert plan.parent == folder / "nvidia-h100-80gb-hbm3-sm90-trt10.14.1.48"
    assert plan.read_bytes().startswith(b"plan of ")
    assert first == (
        "yolo_tiny: building a plan for NVIDIA H100 80GB HBM3 with TensorRT 10.14.1.48, which takes minutes"
    )
    assert re.fullmatch(r"yolo_tiny: built in \d+ s", last)
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
    assert plan_of(plans, graph) == (plan, [])
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(graph.read_bytes())
    assert plan_of(plans, copy) == (plan, [])
    monkeypatch.chdir(tmp_path)
    relative = PlanCache(folder.relative_to(tmp_path), H100, VERSION)
    assert plan_of(relative, graph.relative_to(tmp_path))[0].resolve() == plan
    assert len(fake.builders()) == 1
    assert left_in(plans) == sorted([plan.name, f"{plan.stem}.json", "timing.cache"])


def test_another_gpu_tensorrt_graph_or_profile_needs_another_plan_from_a_fake_tensorrt(
    fake, plans, graph, folder, graph_of
):
    other = graph.with_name("other.onnx")
    onnx.save(graph_of(("images", ["batch", 3, 64, 64])), other)
    made = [
        plan_of(plans, graph)[0],
        plan_of(PlanCache(folder, L4, VERSION), graph)[0],
        plan_of(PlanCache(folder, H100, "11.0.0.12"), graph)[0],
        plan_of(plans, other)[0],
        plan_of(plans, graph, Profile(1, 4, 16))[0],
    ]
    assert len(set(made)) == len(fake.builders()) == 5
    assert all(plan.exists() for plan in made)
    assert (plans.folder / "timing.cache").read_bytes() == 3 * b"+timings"  # shared by the builds of one folder


SPOILERS = {
    "plan truncated": lambda plan, card: plan.write_bytes(plan.read_bytes()[:-1]),
    "plan changed": lambda plan, card: plan.write_bytes(b"X" + plan.read_bytes()[1:]),
    "plan missing": lambda plan, card: plan.unlink(),
    "card truncated": lambda plan, card: card.write_text(card.read_text()[:20]),
    "card a list": lambda plan, card: card.write_text("[]"),
    "card empty": lambda plan, card: card.write_text("{}"),
    "card not text": lambda plan, card: card.write_bytes(b"\xff"),
    "card missing": lambda plan, card: card.unlink(),
}


def test_an_incomplete_plan_is_not_used_and_built_again_with_a_fake_tensorrt(fake, plans, graph):
    plan, _ = plan_of(plans, graph)
    card = plan.with_suffix(".json")
    complete = plan.read_bytes(), card.read_bytes()
    for name, spoil in SPOILERS.items():
        spoil(plan, card)
        assert plans.find(graph, PROFILE) is None, name
        plan.write_bytes(complete[0])
        card.write_bytes(complete[1])
        assert plans.find(graph, PROFILE) == plan, name
    plan.unlink()
    assert plan_of(plans, graph)[0] == plan
    assert plan.read_bytes() == complete[0]
    assert len(fake.builders()) == 2


def test_a_failed_build_of_a_fake_tensorrt_leaves_nothing_and_the_next_may_succeed(fake, plans, graph):
    fake.behave(build="abort")
    with pytest.raises(ModelLoadError, match="TensorRT can't build yolo_tiny: the process was killed by SIGABRT"):
        plan_of(plans, graph)
    assert left_in(plans) == []
    fake.behave()
    lines = []
    assert plans.plan_for(graph, PROFILE, lines.append).exists()
    assert lines[-1].startswith("yolo_tiny.onnx: built in ")


def test_of_two_processes_one_builds_with_a_fake_tensorrt_and_the_other_waits(fake, graph, folder, tmp_path):
    fake.behave(until=str(tmp_path / "both"))
    first = other_process(folder, graph)
    wait_for_builder(fake)
    second = other_process(folder, graph)
    assert second.stdout.readline() == "yolo_tiny: waiting for another build of plans\n"
    (tmp_path / "both").touch()
    built, waited = (process.communicate(timeout=60)[0].splitlines() for process in (first, second))
    assert [first.returncode, second.returncode] == [0, 0]
    assert len(fake.builders()) == 1
    assert built[-2].startswith("yolo_tiny: built in ")
    assert waited == built[-1:]


def test_a_process_that_waited_for_a_failed_build_builds_itself_with_a_fake_tensorrt(
    fake, graph, folder, plans, tmp_path
):
    fake.behave(build="fail", until=str(tmp_path / "waited for"))
    first = other_process(folder, graph)
    wait_for_builder(fake)
    fake.behave()
    lines = []

    def report(line):
        lines.append(line)
        (tmp_path / "waited for").touch()

    plan = plans.plan_for(graph, PROFILE, report, "yolo_tiny")
    assert lines[0] == "yolo_tiny: waiting for another build of plans"
    assert lines[-1].startswith("yolo_tiny: built in ")
    assert plan.exists()
    assert "ModelLoadError" in first.communicate(timeout=60)[1]


def test_files_of_a_killed_build_of_a_fake_tensorrt_are_removed_by_the_next(fake, graph, folder, plans):
    fake.behave(until="never")
    first = other_process(folder, graph)
    wait_for_builder(fake)
    (builder,) = fake.builders()
    first.kill()
    first.communicate()
    os.kill(builder, 9)
    assert len(left_in(plans)) == 1
    fake.behave()
    plan, _ = plan_of(plans, graph)
    assert left_in(plans) == sorted([plan.name, f"{plan.stem}.json", "timing.cache"])


def test_a_read_only_folder_serves_the_plans_that_a_fake_tensorrt_built_there(fake, plans, graph):
    plan, _ = plan_of(plans, graph)
    for lock in plans.folder.glob("*.lock"):
        lock.unlink()
    before = sorted(plans.folder.iterdir())
    plans.folder.chmod(0o555)
    try:
        assert plan_of(plans, graph) == (plan, [])
        assert sorted(plans.folder.iterdir()) == before
        if os.geteuid():  # root may write anywhere
            with pytest.raises(ConfigurationError, match=r"can't be written to \(Permission denied\)"):
                plan_of(plans, graph, Profile(1, 1, 1))
    finally:
        plans.folder.chmod(0o755)


def test_a_folder_that_can_not_be_written_to_and_a_missing_graph_are_named(plans, graph, tmp_path):
    (tmp_path / "file").write_text("no folder")
    blocked = PlanCache(tmp_path / "file" / "plans", H100, VERSION)
    with pytest.raises(ConfigurationError) as error:
        plan_of(blocked, graph)
    assert str(error.value) == (
        f"{blocked.folder} has no TensorRT plan for yolo_tiny and can't be written to (Not a directory): make it "
        "writable, or build the plan in advance"
    )
    with pytest.raises(ModelLoadError, match=r"graph .*nowhere\.onnx can't be read: No such file or directory"):
        plan_of(plans, tmp_path / "nowhere.onnx")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A fake GPU machine with these versions of TensorRT, and the refusal of a plan that it can't build."""
    (tmp_path / "model.onnx").write_text("graph")

    def make(library=None, package=None):
        monkeypatch.setattr(cache, "find_gpu", lambda: L4)
        monkeypatch.setattr(cache, "library_version", lambda: library)
        monkeypatch.setattr(cache, "find_tensorrt", lambda: package)
        return LocalPlans(tmp_path, print)

    return make


def refusal(plans, tmp_path):
    with pytest.raises(ModelLoadError) as error:
        plans.plan_for("yolo", tmp_path / "model.onnx", 64)
    return error.value.message


def test_plans_are_kept_by_the_library_version_and_found_without_the_package_with_a_fake_tensorrt(
    machine, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(
        PlanCache, "plan_for", lambda plans, graph, profile, report, name: asked.append((plans.folder.name, profile))
    )
    machine(library="10.13.2", package="10.13.2.6").plan_for("yolo", tmp_path / "model.onnx", 64)
    assert asked == [("nvidia-l4-sm89-trt10.13.2", Profile(1, 32, 64))]
    monkeypatch.setattr(PlanCache, "find", lambda plans, graph, profile: plans.folder / "found.plan")
    plan = machine(library="10.13.2").plan_for("yolo", tmp_path / "model.onnx", 1)
    assert plan == tmp_path / "nvidia-l4-sm89-trt10.13.2" / "found.plan"


def test_what_to_install_is_named_where_a_fake_tensorrt_can_not_build(machine, tmp_path):
    prefix = "model 'yolo' can't be loaded: "
    for library, package, message in (
        (
            "10.13.2",
            None,
            "there is no TensorRT plan for NVIDIA L4, and the Python package to build it is missing: "
            "install tensorrt==10.13.2, or put model.plan beside model.onnx",
        ),
        (
            None,
            None,
            "there is no TensorRT plan for NVIDIA L4, and the Python package to build it is missing: "
            "install tensorrt in the version that Triton has, or put model.plan beside model.onnx",
        ),
        (
            "10.13.2",
            "11.0.0",
            "TensorRT's Python package has version 11.0.0, but Triton has TensorRT 10.13.2: install tensorrt==10.13.2",
        ),
    ):
        plans = machine(library, package)
        assert refusal(plans, tmp_path) == prefix + message
        assert plans.missing() == message


@pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")
def test_without_a_gpu_no_plan_can_be_built(tmp_path):
    reason = LocalPlans(tmp_path, print).missing()
    assert reason == "TensorRT's plans are built on the GPU that runs them, but this process finds no GPU"

"""Which plans a process may use: its library's version decides, and the package is needed to build alone."""

import pytest

import serve_app.triton.plans.local as local
from serve_app.errors import ModelLoadError
from serve_app.triton.plans import Gpu, LocalPlans, PlanCache, Profile, find_gpu

GPU = Gpu("NVIDIA L4", (8, 9))


@pytest.fixture
def machine(monkeypatch):
    """A GPU machine, faked: what it has of TensorRT."""

    def make(library=None, package=None, gpu=GPU):
        monkeypatch.setattr(local, "find_gpu", lambda: gpu)
        monkeypatch.setattr(local, "library_version", lambda: library)
        monkeypatch.setattr(local, "find_tensorrt", lambda: package)

    return make


@pytest.fixture
def built(monkeypatch):
    """The versions that plans were built with, one after the other; the folder tells the version."""
    folders = []
    monkeypatch.setattr(
        PlanCache, "plan_for", lambda cache, graph, profile, report, name: folders.append((cache.folder.name, profile))
    )
    return folders


def refusal(plans, tmp_path):
    with pytest.raises(ModelLoadError) as caught:
        plans.plan_for("yolo", tmp_path / "model.onnx", 64)
    return caught.value.message


def test_fake_a_plan_is_built_with_the_package_in_the_library_version(machine, built, tmp_path):
    (tmp_path / "model.onnx").write_text("graph")
    machine(library="10.13.2", package="10.13.2.6")
    LocalPlans(tmp_path, print).plan_for("yolo", tmp_path / "model.onnx", 64)
    assert built == [("nvidia-l4-sm89-trt10.13.2", Profile(1, 32, 64))]


def test_fake_without_the_package_a_plan_that_was_built_before_is_found(machine, tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_text("graph")
    machine(library="10.13.2")
    monkeypatch.setattr(PlanCache, "find", lambda cache, graph, profile: cache.folder / "found.plan")
    plan = LocalPlans(tmp_path, print).plan_for("yolo", tmp_path / "model.onnx", 1)
    assert plan == tmp_path / "nvidia-l4-sm89-trt10.13.2" / "found.plan"


def test_fake_without_the_package_what_is_not_built_says_what_to_install(machine, tmp_path):
    (tmp_path / "model.onnx").write_text("graph")
    machine(library="10.13.2")
    told = refusal(LocalPlans(tmp_path, print), tmp_path)
    assert told.startswith("model 'yolo' can't be loaded: its plan for NVIDIA L4 isn't built")
    assert "install tensorrt==10.13.2, or put model.plan beside model.onnx" in told
    machine()
    assert "install tensorrt, in the version that Triton has" in refusal(LocalPlans(tmp_path, print), tmp_path)


def test_fake_a_package_of_another_version_than_the_library_builds_nothing(machine, built, tmp_path):
    (tmp_path / "model.onnx").write_text("graph")
    machine(library="10.13.2", package="11.0.0")
    plans = LocalPlans(tmp_path, print)
    assert "Triton has TensorRT 10.13.2, and the Python package that would build its plan is 11.0.0" in refusal(
        plans, tmp_path
    )
    assert "install tensorrt==10.13.2" in plans.missing()
    assert built == []


@pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")
def test_without_a_gpu_nothing_can_be_built(tmp_path):
    reason = LocalPlans(tmp_path, print).missing()
    assert reason == "TensorRT's plans are built on the GPU that runs them, and this process sees none"

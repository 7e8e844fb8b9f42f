"""What is there: on this machine, and with fakes of what this machine lacks."""

import sys
from types import SimpleNamespace

import pytest

from serve_app.tools.bench.gpu_check import findings, probes
from serve_app.tools.bench.gpu_check.findings import PROBES, Probe, ask, find_all, find_hardware, find_vllm
from serve_app.tools.bench.gpu_check.probes import backend_row, plans_row
from serve_app.triton.plans import Gpu, PlanCache, find_gpu
from serve_app.triton.plans.child import find_tensorrt

without_gpu = pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("findings")
    return {finding.key: finding for finding in find_all(folder / "plans", folder)}


def test_every_row_is_there_with_its_name_and_what_it_is_or_why_not(here):
    keys = {"driver", "gpu", "tensorrt", "tensorrt.library", "plans", "vllm"} | {
        key for probe in PROBES for key, _ in probe.rows
    }
    assert set(here) >= keys
    assert all(finding.name and finding.detail for finding in here.values())


@without_gpu
@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("driver", "no NVIDIA driver: libcuda.so.1 isn't there; NVML: NVML Shared Library Not Found"),
        ("gpu", "no NVIDIA GPU"),
        ("plans", "TensorRT's plans are built on the GPU that runs them, and this process sees none"),
        ("torch.cuda", "PyTorch sees no GPU (built "),
        (
            "dali.cuda",
            "DALI on the GPU fails: You are trying to create a GPU DALI pipeline while CUDA is not available",
        ),
        ("onnxruntime.cuda", "this ONNX Runtime has no CUDAExecutionProvider; onnxruntime-gpu has"),
    ],
)
def test_without_a_gpu_each_reason_is_named(here, key, reason):
    assert not here[key].found
    assert here[key].detail.startswith(reason)


def test_libraries_say_their_versions(here):
    for key in ("triton", "dali", "torch", "onnxruntime", "vllm"):
        assert here[key].found, here[key]
        assert here[key].version[0].isdigit()


@pytest.mark.skipif("tritonserver" in sys.modules, reason="NVIDIA's package is installed")
def test_the_embedded_triton_says_which_backends_it_has(here):
    assert here["triton"].detail.startswith("embedded, of nvidia-pytriton ")
    assert here["triton"].version.startswith("2.")
    assert here["triton.python"].found
    assert not here["triton.tensorrt"].found
    assert here["triton.tensorrt"].detail.startswith("this Triton has no tensorrt backend in /")


@pytest.mark.skipif(find_tensorrt() is not None, reason="TensorRT is installed")
def test_without_tensorrt_nothing_builds_plans(here):
    assert not here["tensorrt"].found
    assert here["tensorrt"].detail == "there is no Python package tensorrt to build plans with"


class FakePlans:
    """A GPU with Triton's TensorRT and no package to build with."""

    def __init__(self, *_):
        pass

    def missing(self):
        return "there is no Python package to build it with"


def test_plans_that_were_built_before_do_on_a_fake_gpu(tmp_path, monkeypatch):
    gpu = Gpu("NVIDIA A10G", (8, 6))
    monkeypatch.setattr("serve_app.triton.plans.LocalPlans", FakePlans)
    monkeypatch.setattr("serve_app.triton.plans.find_gpu", lambda: gpu)
    folder = PlanCache(tmp_path, gpu, "10.13.2").folder
    assert not plans_row("plans", "", tmp_path, "10.13.2").found
    folder.mkdir()
    (folder / "abc.plan").touch()
    assert plans_row("plans", "", tmp_path, "10.13.2").detail.startswith(f"1 built before in {folder}; no others")
    assert not plans_row("plans", "", tmp_path, "10.9.0").found


def test_a_backend_is_there_when_its_library_is(tmp_path):
    (tmp_path / "dali").mkdir()
    assert not backend_row("triton.dali", "", tmp_path).found
    (tmp_path / "dali" / "libtriton_dali.so").touch()
    assert backend_row("triton.dali", "", tmp_path).found


def test_a_probe_that_fails_gives_its_reason_to_every_row(tmp_path):
    rows = (("torch", "PyTorch"), ("torch.cuda", "PyTorch on the GPU"))
    broken = Probe(probes.backend_row, rows)  # misses its arguments
    for finding in ask(broken, tmp_path):
        assert not finding.found
        assert "missing 2 required positional arguments" in finding.detail


class FakeNvml:
    """A machine with one GPU."""

    class NVMLError(Exception):
        pass

    def __init__(self, memory=24 << 30):
        self.memory = memory

    def nvmlInit(self):  # noqa: N802
        pass

    def nvmlShutdown(self):  # noqa: N802
        pass

    def nvmlSystemGetDriverVersion(self):  # noqa: N802
        return "575.57.08"

    def nvmlDeviceGetCount(self):  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, number):  # noqa: N802
        return number

    def nvmlDeviceGetName(self, device):  # noqa: N802
        return "NVIDIA A10G"

    def nvmlDeviceGetCudaComputeCapability(self, device):  # noqa: N802
        return 8, 6

    def nvmlDeviceGetMemoryInfo(self, device):  # noqa: N802
        if not self.memory:
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(total=self.memory, free=self.memory // 2)


def hardware_with_fakes(monkeypatch, gpu, cuda, nvml):
    monkeypatch.setattr(findings, "find_gpu", lambda: gpu)
    monkeypatch.setattr(findings, "driver_version", lambda: cuda)
    return {finding.key: finding for finding in find_hardware(nvml)}


def test_a_fake_gpu_is_described(monkeypatch):
    rows = hardware_with_fakes(monkeypatch, Gpu("NVIDIA A10G", (8, 6)), "12.9", FakeNvml)
    assert (rows["driver"].version, rows["driver"].detail) == ("575.57.08", "runs CUDA up to 12.9")
    assert rows["gpu"].detail == "NVIDIA A10G, compute capability 8.6"
    assert rows["gpu.0"].detail == "NVIDIA A10G, compute capability 8.6, 24.0 GiB (12.0 free)"
    assert all(row.found for row in rows.values())


def test_a_fake_gpu_that_does_not_tell_its_memory_is_a_row_too(monkeypatch):
    rows = hardware_with_fakes(monkeypatch, Gpu("NVIDIA GB10", (12, 1)), "13.0", lambda: FakeNvml(memory=0))
    assert rows["gpu.0"].detail == "NVIDIA A10G, compute capability 8.6, memory: Not Supported"


def test_a_fake_gpu_that_cuda_does_not_give_is_not_in_use(monkeypatch):
    rows = hardware_with_fakes(monkeypatch, None, "12.9", FakeNvml)
    assert rows["gpu.0"].found
    assert not rows["gpu"].found
    assert "is CUDA_VISIBLE_DEVICES empty?" in rows["gpu"].detail


def test_a_fake_gpu_without_nvml_is_in_use_all_the_same(monkeypatch):
    def missing():
        raise ImportError("No module named 'pynvml'")

    rows = hardware_with_fakes(monkeypatch, Gpu("NVIDIA A10G", (8, 6)), "12.9", missing)
    assert rows["gpu"].found
    assert rows["driver"].detail == "runs CUDA up to 12.9; NVML: No module named 'pynvml'"


def test_vllm_is_not_there_under_names_that_nothing_has(monkeypatch):
    monkeypatch.setattr(findings, "VLLM_PACKAGES", ("no-such-package",))
    assert find_vllm().detail == "no Python package no-such-package"

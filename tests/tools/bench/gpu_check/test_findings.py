"""What is found on this machine, and with fakes of hardware that it lacks."""

import sys
from types import SimpleNamespace

import pytest

from serve_app.tools.bench.gpu_check import findings, probes
from serve_app.tools.bench.gpu_check.findings import PROBES, find_all, find_hardware, find_vllm, run_probe
from serve_app.tools.bench.gpu_check.probes import backend_row, plans_row
from serve_app.triton.plans import Gpu, PlanCache, find_gpu
from serve_app.triton.plans.child import find_tensorrt

A10G = Gpu("NVIDIA A10G", (8, 6))


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The findings on this machine, by key."""
    folder = tmp_path_factory.mktemp("findings")
    return {finding.key: finding for finding in find_all(folder / "plans", folder)}


def test_every_component_is_found_or_missing_for_a_reason(here):
    keys = {"driver", "gpu", "vllm"} | {key for rows in PROBES.values() for key in rows}
    assert set(here) >= keys
    assert all(finding.name and finding.detail for finding in here.values())
    for key in ("triton", "dali", "torch", "onnxruntime", "vllm"):
        assert here[key].found, here[key]
        assert here[key].version[0].isdigit()


@pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")
def test_without_a_gpu_each_reason_is_named(here):
    for key, reason in (
        ("driver", "no NVIDIA driver: libcuda.so.1 was not found; NVML: NVML Shared Library Not Found"),
        ("gpu", "no NVIDIA GPU"),
        ("torch.cuda", "PyTorch sees no GPU (built "),
        ("dali.cuda", "DALI on the GPU fails: You are trying to create a GPU DALI pipeline while CUDA is not availabl"),
        ("onnxruntime.cuda", "this ONNX Runtime has no CUDAExecutionProvider; install onnxruntime-gpu"),
    ):
        assert not here[key].found
        assert here[key].detail.startswith(reason), here[key]
    assert not here["plans"].found


@pytest.mark.skipif("tritonserver" in sys.modules, reason="NVIDIA's package is installed")
def test_the_embedded_triton_lists_its_backends(here):
    assert here["triton"].detail.startswith("embedded, from nvidia-pytriton ")
    assert here["triton"].version.startswith("2.")
    assert here["triton.python"].found
    assert here["triton.tensorrt"].detail.startswith("this Triton has no tensorrt backend in /")


@pytest.mark.skipif(find_tensorrt() is not None, reason="TensorRT is installed")
def test_without_tensorrt_no_plans_are_built(here):
    assert not here["tensorrt"].found
    assert here["tensorrt"].detail == "there is no Python package tensorrt to build plans with"


def test_plans_that_were_built_before_are_found_on_a_fake_gpu_that_cannot_build_them(tmp_path, monkeypatch):
    fake = SimpleNamespace(missing=lambda: "there is no Python package to build it with")
    monkeypatch.setattr("serve_app.triton.plans.LocalPlans", lambda *_: fake)
    monkeypatch.setattr("serve_app.triton.plans.find_gpu", lambda: A10G)
    folder = PlanCache(tmp_path, A10G, "10.13.2").folder
    assert not plans_row(tmp_path, "10.13.2").found
    folder.mkdir()
    (folder / "abc.plan").touch()
    assert plans_row(tmp_path, "10.13.2").detail.startswith(f"1 built before in {folder}; no others can be built: ")
    assert not plans_row(tmp_path, "10.9.0").found


def test_a_backend_is_found_by_its_library(tmp_path):
    (tmp_path / "dali").mkdir()
    assert not backend_row("dali", tmp_path).found
    (tmp_path / "dali" / "libtriton_dali.so").touch()
    assert backend_row("dali", tmp_path).found


def test_the_error_of_a_probe_is_the_reason_of_each_of_its_rows(tmp_path):
    rows = list(run_probe(probes.backend_row, probes.TORCH_ROWS, tmp_path))  # called with a wrong number of arguments
    assert [row.key for row in rows] == ["torch", "torch.cuda"]
    assert all(not row.found and "missing 1 required positional argument" in row.detail for row in rows)


class NvmlError(Exception):
    pass


def fake_nvml(memory=24 << 30):
    """A machine with one A10G; without memory NVML can't tell it."""

    def memory_info(_):
        if not memory:
            raise NvmlError("Not Supported")
        return SimpleNamespace(total=memory, free=memory // 2)

    return SimpleNamespace(
        NVMLError=NvmlError, nvmlInit=lambda: None, nvmlShutdown=lambda: None, nvmlDeviceGetCount=lambda: 1,
        nvmlSystemGetDriverVersion=lambda: "575.57.08", nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetName=lambda _: "NVIDIA A10G", nvmlDeviceGetCudaComputeCapability=lambda _: (8, 6),
        nvmlDeviceGetMemoryInfo=memory_info,
    )  # fmt: skip


def no_nvml():
    raise ImportError("No module named 'pynvml'")


def test_fake_hardware_is_described(monkeypatch):
    listed, hidden = (
        "NVIDIA A10G, compute capability 8.6",
        "no NVIDIA GPU for this process, though the machine has some",
    )
    for gpu, nvml, gpu_row, other_key, other_row in (
        (A10G, fake_nvml, listed, "gpu.0", f"{listed}, 24.0 GiB (12.0 free)"),
        (A10G, fake_nvml, listed, "driver", "runs CUDA up to 12.9"),
        (A10G, lambda: fake_nvml(0), listed, "gpu.0", f"{listed}, memory: Not Supported"),
        (A10G, no_nvml, listed, "driver", "runs CUDA up to 12.9; NVML: No module named 'pynvml'"),
        (None, fake_nvml, f"{hidden}: is CUDA_VISIBLE_DEVICES empty?", "driver", "runs CUDA up to 12.9"),
    ):
        monkeypatch.setattr(findings, "find_gpu", lambda gpu=gpu: gpu)
        monkeypatch.setattr(findings, "driver_version", lambda: "12.9")
        rows = {row.key: row for row in find_hardware(nvml)}
        assert (rows["gpu"].detail, rows[other_key].detail) == (gpu_row, other_row)
        assert rows["gpu"].found == (gpu is not None)


def test_vllm_is_looked_for_by_the_names_of_its_packages(monkeypatch):
    monkeypatch.setattr(findings, "VLLM_PACKAGES", ("no-such-package",))
    assert find_vllm().detail == "no Python package no-such-package"

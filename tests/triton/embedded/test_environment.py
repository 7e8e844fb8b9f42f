"""What Triton needs of the machine, and the message when it is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest

import serve_app.triton.embedded as triton
from serve_app.triton.embedded import guardian, library, stubs

MODELS = str(Path(__file__).parent / "models")


def test_the_python_backend_is_proved_with_known_tensors() -> None:
    triton.prove_python_backend()


def test_numpy_2_is_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numpy, "__version__", "2.1.0")
    with pytest.raises(triton.UnsupportedError, match=r"needs NumPy 1.*2\.1\.0 is installed"):
        triton.Server(model_repository=MODELS).start()


def test_numpy_2_is_refused_when_a_python_model_is_loaded(
    server: triton.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numpy, "__version__", "2.1.0")
    with pytest.raises(triton.UnsupportedError, match="needs NumPy 1"):
        server.load("echo")


def test_a_full_dev_shm_is_one_clear_error(server: triton.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=100, f_frsize=4096))
    message = r"/dev/shm has 409600 bytes free, 1 model instances need 2097152"
    with pytest.raises(triton.UnavailableError, match=message):
        server.load("identity")


def test_a_missing_libpython_names_the_debian_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_file", lambda _: False)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(triton.NotFoundError, match=rf"apt-get install libpython{version}"):
        library.python_library_directory()


def test_a_missing_wheel_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(triton.NotFoundError, match="pip install nvidia-pytriton"):
        library.wheel_directory()


def test_other_libraries_keep_their_own_versions_of_what_triton_brings() -> None:
    """Symbols of the whole process come before those of a library's own dependencies."""
    code = """
import ctypes
from serve_app.triton.embedded.capi import api
api()
print([name for name in ("ZSTD_versionNumber", "SSL_new", "ffi_closure_free", "lzma_code", "xmlFree", "curl_easy_init")
       if hasattr(ctypes.CDLL(None), name)])
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=environment) == "[]\n"


def test_the_backend_directory_is_made_of_links_into_the_wheel() -> None:
    folder = Path(library.backend_directory()) / "python"
    assert {path.name for path in folder.iterdir()} >= {
        "libtriton_python.so",
        "triton_python_backend_utils.py",
        "triton_python_backend_stub",
    }
    made = [path for path in folder.iterdir() if path.name != "__pycache__"]  # that one is of the stubs
    assert all(path.is_symlink() and path.exists() for path in made)
    assert library.backend_directory() == str(folder.parent)  # a second time finds it made


def test_an_environment_that_is_read_only_gets_its_backend_directory_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(library, "_backend_folders", lambda: [Path("/proc/nowhere"), tmp_path])
    assert library.backend_directory() == str(tmp_path / "triton_backends")


def test_paths_are_put_first_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/one:/two")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    library.prepare_environment()
    library.prepare_environment()
    assert os.environ["PATH"] == f"{sys.prefix}/bin:/one:/two"
    assert os.environ["LD_LIBRARY_PATH"] == str(library.python_library_directory())


def test_stubs_are_counted_from_the_files_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.py").touch()
    assert stubs.stub_count([str(tmp_path)]) == 1  # without a configuration
    for config, count in (
        ('backend: "python"', 1),
        ("# backend: 'python'\nbackend: 'onnxruntime'", 0),
        ('backend: "python"\ninstance_group [ { count: 3 kind: KIND_CPU }, { count: 2 } ]', 5),
        ("max_batch_size: 4", 1),
    ):
        (tmp_path / "m" / "config.pbtxt").write_text(config)
        assert stubs.stub_count([str(tmp_path)]) == count, config
        assert stubs.stub_count([str(tmp_path)], ["other"]) == 0
    assert stubs.stub_count(["/nowhere"]) == 0


def test_a_process_that_is_gone_has_no_start_time() -> None:
    assert guardian.start_ticks(os.getpid()) is not None
    assert guardian.start_ticks(2**22 + 1) is None


def test_only_regions_of_dead_processes_are_swept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(guardian, "SHARED_MEMORY", str(tmp_path))
    namespace, pid = stubs._namespace(), os.getpid()
    kept = [
        f"serve_app_triton_{namespace}_{pid}_{guardian.start_ticks(pid)}_1_region",
        f"serve_app_triton_{namespace + 1}_{2**22 + 1}_5_1_region",
        "triton_python_backend_shm_region_x",
        "serve_app_triton_",
    ]
    dead = [f"serve_app_triton_{namespace}_{pid}_5_1_a", f"serve_app_triton_{namespace}_{2**22 + 1}_5_1_b"]
    for name in kept + dead:
        (tmp_path / name).touch()
    stubs.sweep()
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


def test_a_program_written_for_tritonserver_finds_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonserver", triton)
    found: dict[str, Any] = {}
    exec(  # as an import at the top of such a program
        "import tritonserver\n"
        "from tritonserver import (AlreadyExistsError, DataType, DLDeviceType, InferenceRequest,"
        " InferenceResponse, InstanceGroupKind, InternalError, InvalidArgumentError, LogFormat,"
        " MemoryBuffer, MemoryType, Metric, MetricFamily, MetricFormat, MetricKind, Model, ModelBatchFlag,"
        " ModelControlMode, ModelTxnPropertyFlag, NotFoundError, Options, RateLimiterResource,"
        " RateLimitMode, Server, Tensor, TritonError, UnavailableError, UnknownError, UnsupportedError)",
        found,
    )
    assert found["tritonserver"].Server is triton.Server
    assert isinstance(found["tritonserver"].__version__, str)


def test_a_stub_sees_the_packages_of_the_environment(server: triton.Server) -> None:
    code = b"""
import sys
import numpy as np
import ml_dtypes
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        text = np.array([sys.prefix.encode(), ml_dtypes.__name__.encode()], dtype=object)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", text)]) for _ in requests]
"""
    config = (
        '{"backend": "python", "input": [{"name": "IN", "data_type": "TYPE_FP32", "dims": [1]}],'
        ' "output": [{"name": "OUT", "data_type": "TYPE_STRING", "dims": [2]}]}'
    )
    model = server.load("prefixes", {"config": config, "file:1/model.py": code})
    (response,) = model.infer(inputs={"IN": [numpy.float32(1)]})
    assert response.outputs["OUT"].to_string_array()[0] == sys.prefix
    server.unload("prefixes")


def test_importing_loads_no_library_and_touches_no_environment() -> None:
    code = """
import os
before = dict(os.environ)
import serve_app.triton.embedded
assert dict(os.environ) == before
assert "nvidia_pytriton" not in open("/proc/self/maps").read()
assert "pytriton" not in __import__("sys").modules
"""
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(root)})

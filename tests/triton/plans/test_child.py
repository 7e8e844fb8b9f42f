"""The child process of a build, a real one around a fake TensorRT: it succeeds, fails and is interrupted."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from serve_app.errors import ConfigurationError, ModelLoadError
from serve_app.triton.plans.builder import Profile
from serve_app.triton.plans.child import build_in_child, find_tensorrt

PHASES = [["Building engine", None, 2], ["Timing graph nodes", "Building engine", 2]]


def build(graph, target, report=lambda line: None, timing="timing.cache"):
    build_in_child(graph, target, Profile(1, 4, 8), target.parent / timing, "yolo_tiny", report)


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "serve_app.triton.plans", *map(str, arguments)],
        capture_output=True, text=True, timeout=60, **options,
    )  # fmt: skip


@pytest.fixture
def target(tmp_path):
    (tmp_path / "plans").mkdir()
    return tmp_path / "plans" / "yolo_tiny.plan"


def wait_until(true, limit_s=30):
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_fake_tensorrt_builds_in_another_process_which_reports_progress_and_keeps_timings(fake, graph, target):
    lines = []
    build(graph, fake.behave(phases=PHASES) and target, lines.append)
    assert target.read_bytes().startswith(b"plan of ")
    assert lines == ["yolo_tiny: Building engine, 1 of 2", "yolo_tiny: Building engine, done in 0 s"]
    assert os.getpid() not in fake.builders()
    assert not {"tensorrt", "fake_tensorrt"} & set(sys.modules)
    (call,) = fake.calls("build_serialized_network")
    assert call["profiles"] == [{"images": [[1, 3, 32, 32], [4, 3, 32, 32], [8, 3, 32, 32]]}]
    build(graph, target)
    assert len(fake.builders()) == 2
    assert (target.parent / "timing.cache").read_bytes() == b"+timings+timings"
    assert left_in(target.parent) == ["timing.cache", "yolo_tiny.plan"]
    build(graph, target, lines.append, timing="no/timing.cache")
    assert lines[-1].startswith("yolo_tiny: the timing cache can't be written: [Errno 2]")


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"build": "fail"}, "TensorRT's build failed: Error Code 10: no kernel for node Conv_7"),
        ({"build": "abort"}, "the process was killed by SIGABRT; its last output was: TensorRT: a weight was rounded"),
        ({"version": "unheard of"}, "ValueError: invalid literal for int() with base 10: 'unheard of'"),
        ({"import_error": "libnvinfer.so.10: cannot open shared object file"},
         "TensorRT's Python package can't be loaded: libnvinfer.so.10: cannot open shared object file"),
    ],
    ids=["an error", "a crash", "an exception", "no library"],
)  # fmt: skip
def test_a_failed_build_of_a_fake_tensorrt_leaves_nothing_and_its_reason_is_one_line(
    fake, graph, target, behaviour, reason
):
    fake.behave(**behaviour)
    with pytest.raises(ModelLoadError) as error:
        build(graph, target)
    assert str(error.value) == f"TensorRT can't build yolo_tiny: {reason}"
    assert left_in(target.parent) == []


def test_without_tensorrt_there_is_no_version_and_no_build(graph, target):
    assert find_tensorrt() is None
    with pytest.raises(ModelLoadError, match="Python package can't be loaded: No module named 'tensorrt'"):
        build(graph, target)


def test_a_killed_builder_with_a_fake_tensorrt_leaves_nothing(fake, graph, target):
    fake.behave(until="never")
    failures = []

    def run():
        try:
            build(graph, target)
        except ModelLoadError as problem:
            failures.append(str(problem))

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(fake.builders)
    os.kill(*fake.builders(), signal.SIGKILL)
    thread.join(30)
    assert failures == [
        "TensorRT can't build yolo_tiny: the process was killed by SIGKILL, probably because memory ran out; its last "
        "output was: TensorRT: a weight was rounded"
    ]
    assert left_in(target.parent) == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_wait_ends_the_builder_with_a_fake_tensorrt(fake, graph, target, interruption):
    fake.behave(phases=[["Building engine", None, 1]], until="never")

    def report(line):
        raise interruption

    with pytest.raises(interruption):
        build(graph, target, report)
    (pid,) = fake.builders()
    assert not is_running(pid)
    assert left_in(target.parent) == []


def test_a_builder_with_a_fake_tensorrt_ends_soon_after_its_parent_process_was_killed(fake, graph, target):
    fake.behave(phases=[["Building engine", None, 1000]], step_s=0.05)
    program = (
        "import sys; from pathlib import Path; from serve_app.triton.plans.builder import Profile;"
        "from serve_app.triton.plans.child import build_in_child;"
        "build_in_child(*map(Path, sys.argv[1:3]), Profile(1, 1, 1), Path(sys.argv[3]), 'yolo_tiny', print)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, graph, target, target.parent / "timing.cache"])
    wait_until(fake.builders)
    parent.kill()
    parent.wait()
    (pid,) = fake.builders()
    wait_until(lambda: not is_running(pid))
    assert left_in(target.parent) == []


def test_ctrl_c_ends_a_builder_even_while_a_fake_tensorrt_does_not_return(fake, graph, target):
    fake.behave(until="never")
    builder = subprocess.Popen(
        [sys.executable, "-m", "serve_app.triton.plans", graph, target, "--opt", "1", "--max", "1"]
    )
    wait_until(fake.builders)
    builder.send_signal(signal.SIGINT)
    assert builder.wait(30) == -signal.SIGINT
    assert left_in(target.parent) == []


def test_the_version_of_a_fake_tensorrt_is_its_own_and_a_broken_package_is_reported(fake):
    assert fake.behave("11")
    assert find_tensorrt() == "11.0.0.12"
    assert "tensorrt" not in sys.modules
    fake.behave(import_error="libnvinfer.so.10: cannot open shared object file")
    with pytest.raises(ConfigurationError) as error:
        find_tensorrt()
    assert str(error.value) == (
        "TensorRT's Python package can't be loaded: libnvinfer.so.10: cannot open shared object file; "
        "repair or uninstall the package"
    )


def test_the_command_builds_with_a_fake_tensorrt_and_refuses_with_one_line(fake, graph, target, tmp_path):
    fake.behave(phases=PHASES)
    answer = command(graph, target, "--opt", 2, "--max", 4, "--workspace-mib", 256)
    assert answer.returncode == 0
    assert answer.stdout.splitlines()[-1] == "yolo_tiny.onnx: Building engine, done in 0 s"
    assert fake.calls("set_memory_pool_limit")[0]["bytes"] == 256 << 20
    assert left_in(target.parent) == ["yolo_tiny.plan"]
    for arguments, reason in (
        (["--opt", 1, "--max", 1], "error: [Errno 2] No such file or directory: 'nowhere.onnx'\n"),
        (["--opt", 2, "--max", 1], "error: batch sizes must be 1 <= min <= opt <= max, got min 1, opt 2, max 1\n"),
    ):
        answer = command("nowhere.onnx", "a.plan", *arguments, cwd=tmp_path)
        assert answer.returncode == 1
        assert answer.stderr == reason

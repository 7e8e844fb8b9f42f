"""The builder's process: real processes around a fake TensorRT, which end well, badly and in the middle."""

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


def build(graph, target, report=lambda line: None):
    build_in_child(graph, target, Profile(1, 4, 8), target.parent / "timing.cache", "yolo_tiny", report)


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


@pytest.mark.parametrize("flavour", ["10", "11", "11 without the flag"])
def test_fake_a_plan_is_built_in_another_process_and_its_progress_told_here(fake, graph, target, flavour):
    lines = []
    build(graph, fake.behave(flavour, phases=PHASES) and target, lines.append)
    assert target.read_bytes().startswith(b"plan of ")
    assert lines == ["yolo_tiny: Building engine, 1 of 2", "yolo_tiny: Building engine, done in 0 s"]
    assert os.getpid() not in fake.builders()
    assert len(fake.builders()) == 1
    assert not {"tensorrt", "fake_tensorrt"} & set(sys.modules)
    (call,) = fake.calls("build_serialized_network")
    assert call["profiles"] == [{"images": [[1, 3, 32, 32], [4, 3, 32, 32], [8, 3, 32, 32]]}]


def test_fake_timings_are_kept_in_a_file_for_the_next_build(fake, graph, target):
    for _ in range(2):
        build(graph, target)
    assert [call["timing"] for call in fake.calls("build_serialized_network")] in (["", "+timings"], ["+timings", ""])
    assert (target.parent / "timing.cache").read_bytes() == b"+timings+timings"
    assert left_in(target.parent) == ["timing.cache", "yolo_tiny.plan"]


def test_fake_timings_that_can_not_be_kept_stop_nothing(fake, graph, target):
    lines = []
    build_in_child(graph, target, Profile(1, 1, 1), target.parent / "no" / "timing.cache", "yolo_tiny", lines.append)
    assert target.exists()
    assert lines[-1].startswith("yolo_tiny: the timing cache can't be kept: [Errno 2]")


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"parser_errors": ["In node 3: Foo", "In node 4: Bar"]},
         "TensorRT can't read the graph: In node 3: Foo; In node 4: Bar"),
        ({"build": "fail"}, "TensorRT built nothing: Error Code 10: no kernel for node Conv_7"),
        ({"build": "fail silently"}, "TensorRT built nothing: it gave no reason"),
        ({"build": "abort"}, "its process was ended by SIGABRT; its last words: TensorRT: a weight was rounded"),
        ({"version": "8.6.1"}, "TensorRT 8.6.1 is too old: install 10 or newer"),
        ({"version": "unheard of"}, "ValueError: invalid literal for int() with base 10: 'unheard of'"),
        ({"import_error": "libnvinfer.so.10: cannot open shared object file"},
         "TensorRT's Python package can't be loaded: libnvinfer.so.10: cannot open shared object file"),
    ],
)  # fmt: skip
def test_fake_a_build_that_fails_leaves_nothing_and_says_why_in_one_line(fake, graph, target, behaviour, reason):
    fake.behave(**behaviour)
    with pytest.raises(ModelLoadError) as error:
        build(graph, target)
    assert str(error.value) == f"TensorRT can't build yolo_tiny: {reason}"
    assert left_in(target.parent) == []


def test_without_tensorrt_a_build_says_so(graph, target):
    with pytest.raises(ModelLoadError, match="Python package can't be loaded: No module named 'tensorrt'"):
        build(graph, target)


def test_fake_a_builder_killed_in_the_middle_leaves_nothing(fake, graph, target):
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
        "TensorRT can't build yolo_tiny: its process was ended by SIGKILL, which is what happens where memory runs "
        "out; its last words: TensorRT: a weight was rounded"
    ]
    assert left_in(target.parent) == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_fake_whoever_stops_waiting_ends_the_builder(fake, graph, target, interruption):
    fake.behave(phases=[["Building engine", None, 1]], until="never")

    def report(line):
        raise interruption

    with pytest.raises(interruption):
        build(graph, target, report)
    (pid,) = fake.builders()
    assert not is_running(pid)
    assert left_in(target.parent) == []


def test_fake_a_builder_ends_soon_after_the_process_that_waited_for_it_was_killed(fake, graph, target):
    fake.behave(phases=[["Building engine", None, 1000]], step_s=0.05)
    program = (
        "import sys; from pathlib import Path; from serve_app.triton.plans.builder import Profile;"
        "from serve_app.triton.plans.child import build_in_child;"
        "build_in_child(*map(Path, sys.argv[1:3]), Profile(1, 1, 1), Path(sys.argv[3]), 'yolo_tiny', print)"
    )
    waiting = subprocess.Popen([sys.executable, "-c", program, graph, target, target.parent / "timing.cache"])
    wait_until(fake.builders)
    waiting.kill()
    waiting.wait()
    (pid,) = fake.builders()
    wait_until(lambda: not is_running(pid), limit_s=10)
    assert left_in(target.parent) == []


def test_fake_ctrl_c_ends_a_builder_at_once_though_tensorrt_does_not_return(fake, graph, target):
    fake.behave(until="never")
    builder = subprocess.Popen(
        [sys.executable, "-m", "serve_app.triton.plans", graph, target, "--opt", "1", "--max", "1"]
    )
    wait_until(fake.builders)
    builder.send_signal(signal.SIGINT)
    assert builder.wait(5) == -signal.SIGINT
    assert left_in(target.parent) == []


def test_without_tensorrt_there_is_no_version():
    assert find_tensorrt() is None


@pytest.mark.parametrize(("flavour", "version"), [("10", "10.14.1.48"), ("11", "11.0.0.12")])
def test_fake_the_version_is_the_packages_own(fake, flavour, version):
    fake.behave(flavour)
    assert find_tensorrt() == version
    assert "tensorrt" not in sys.modules


def test_fake_a_tensorrt_that_does_not_load_is_told(fake):
    fake.behave(import_error="libnvinfer.so.10: cannot open shared object file")
    with pytest.raises(ConfigurationError) as error:
        find_tensorrt()
    assert str(error.value) == (
        "TensorRT's Python package can't be loaded: libnvinfer.so.10: cannot open shared object file: "
        "mend it or uninstall it"
    )


def test_the_command_helps():
    answer = command("--help")
    assert answer.returncode == 0
    assert "Builds a TensorRT plan for the GPU of this machine." in answer.stdout
    assert "--timing-cache" in answer.stdout


def test_fake_the_command_takes_a_workspace_and_names_the_graph_by_its_file(fake, graph, target):
    fake.behave(phases=PHASES)
    answer = command(graph, target, "--opt", 2, "--max", 4, "--workspace-mib", 256)
    assert answer.returncode == 0
    assert answer.stdout.splitlines()[-1] == "yolo_tiny.onnx: Building engine, done in 0 s"
    assert fake.calls("set_memory_pool_limit")[0]["bytes"] == 256 << 20
    assert left_in(target.parent) == ["yolo_tiny.plan"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--opt", 1, "--max", 1], "error: [Errno 2] No such file or directory: 'nowhere.onnx'"),
        (["--opt", 2, "--max", 1], "error: batch sizes min 1, opt 2, max 1: each must be at least 1"),
    ],
)
def test_the_command_refuses_with_one_line(tmp_path, arguments, reason):
    answer = command("nowhere.onnx", "a.plan", *arguments, cwd=tmp_path)
    assert answer.returncode == 1
    assert answer.stderr.startswith(reason)
    assert len(answer.stderr.splitlines()) == 1

"""A start that can't succeed: one clear line, a status that isn't 0, and nothing left running."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from serve_app.settings import PROJECT_ROOT

pytestmark = pytest.mark.e2e


def serve(config, patience_s=90, wrapper=()):
    return subprocess.run(
        [*wrapper, sys.executable, PROJECT_ROOT / "scripts" / "serve", config],
        cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=patience_s,
    )  # fmt: skip


def copy_repository(folder):
    target = folder / "repository"
    shutil.copytree(PROJECT_ROOT / "model_repository" / "cpu", target)
    return target


def refused(answer, *messages):
    assert answer.returncode == 1, answer.stdout + answer.stderr
    line = answer.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ")
    for message in messages:
        assert message in line
    assert "Traceback" not in answer.stderr


@pytest.fixture
def config(tmp_path, configure):
    return configure(tmp_path)


def test_a_model_file_that_is_corrupt_ends_the_start_with_its_name(tmp_path, configure, start_service):
    repository = copy_repository(tmp_path)
    (repository / "yolo_nano" / "1" / "model.xml").write_text("garbage")
    run = start_service(configure(tmp_path, model_repository=str(repository)), tmp_path / "log")
    try:
        status = run.process.wait(150)
    finally:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
    assert status == 1
    last = run.output().strip().splitlines()[-1]
    assert last.startswith("error: vision: model 'yolo_nano' can't be loaded: ")
    assert "model.xml" in last


def test_two_runs_at_once_are_refused_by_the_port(service):
    answer = serve(service.config)
    refused(answer, f"port {service.port}", "address already in use", "is the service already running?")


def test_an_unknown_key_is_refused(tmp_path, config):
    config.write_text(config.read_text().replace("max_pixels", "max_pixel"))
    refused(serve(config), "unknown key 'max_pixel'; did you mean 'max_pixels'?")


def test_a_repository_that_is_not_there_is_refused(tmp_path, configure):
    refused(serve(configure(tmp_path, model_repository=str(tmp_path / "nowhere"))), "nowhere", "`make models`")


def test_a_config_pbtxt_that_is_wrong_is_refused_with_its_place(tmp_path, configure):
    repository = copy_repository(tmp_path)
    path = repository / "yolo_nano" / "config.pbtxt"
    path.write_text(path.read_text().replace("max_batch_size", "max_batch_sise"))
    refused(serve(configure(tmp_path, model_repository=str(repository))), f"{path}: 4:1", "max_batch_sise")


def test_too_little_shared_memory_is_refused_with_what_is_needed(config):
    if os.geteuid() != 0:
        pytest.skip("mounting a small /dev/shm takes root")
    script = 'mount -t tmpfs -o size=20m tmpfs /dev/shm && exec "$@"'
    wrapper = ("unshare", "--mount", "sh", "-c", script, "sh")
    refused(serve(config, wrapper=wrapper), "/dev/shm has 20 MiB free", "model instances of vision need 112 MiB")

"""Starts that can't succeed: they end with one clear line that names the fix."""

import os
import shutil
import subprocess
import sys

import pytest

from serve_app.errors import ServeAppError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.launch.preflight import check_config
from tests.e2e.service import START_PATIENCE_S, write_config


def copy_repository(folder):
    target = folder / "repository"
    shutil.copytree(PROJECT_ROOT / "model_repository" / "cpu", target)
    return target


def test_a_model_file_that_is_corrupt_ends_the_start_with_its_name(tmp_path, start_service):
    repository = copy_repository(tmp_path)
    (repository / "yolo_nano" / "1" / "model.xml").write_text("garbage")
    run = start_service(write_config(tmp_path, model_repository=str(repository)), tmp_path / "log")
    try:
        status = run.process.wait(START_PATIENCE_S)
    finally:
        if run.process.poll() is None:
            run.stop()
    assert status == 1
    last = run.output().strip().splitlines()[-1]
    assert last.startswith("error: router: model 'yolo_nano' can't be loaded: ")  # which hosts it
    assert "model.xml" in last


def refusal(config):
    """What `scripts/serve` prints after `error: `; tests/tools/launch has the command itself."""
    with pytest.raises(ServeAppError) as refused:
        check_config(config)
    return str(refused.value)


def test_a_second_run_is_refused_by_the_port(service):
    message = refusal(service.config)
    assert f"port {service.port}" in message
    assert "address already in use; is the service already running?" in message


def test_what_can_be_known_before_the_start_is_refused_with_the_fix(tmp_path):
    misspelled = write_config(tmp_path)
    misspelled.write_text(misspelled.read_text().replace("max_pixels", "max_pixel"))
    assert "unknown key 'max_pixel'; did you mean 'max_pixels'?" in refusal(misspelled)

    message = refusal(write_config(tmp_path, model_repository=str(tmp_path / "nowhere")))
    assert "nowhere" in message
    assert "`make models`" in message

    repository = copy_repository(tmp_path)
    path = repository / "yolo_nano" / "config.pbtxt"
    path.write_text(path.read_text().replace("max_batch_size", "max_batch_sise"))
    message = refusal(write_config(tmp_path, model_repository=str(repository)))
    assert f"{path}: 4:1" in message
    assert "max_batch_sise" in message


def test_too_little_shared_memory_is_refused_with_what_is_needed(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small /dev/shm takes root")
    script = 'mount -t tmpfs -o size=20m tmpfs /dev/shm && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, PROJECT_ROOT / "scripts" / "serve"]
    command.append(write_config(tmp_path))
    answer = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=90)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    line = answer.stderr.strip().splitlines()[-1]
    assert line.startswith("error: /dev/shm has 20 MiB free")
    assert "model instances of vision need 112 MiB" in line
    assert "Traceback" not in answer.stderr

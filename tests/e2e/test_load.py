"""`scripts/load` without its page: what it sends, what it counts, and how it ends."""

import json
import os
import shutil
import subprocess
import sys

from serve_app.settings import PROJECT_ROOT

SHAPES = PROJECT_ROOT / "docs" / "shapes.jpg"


def load(*arguments, **environment):
    command = [sys.executable, PROJECT_ROOT / "scripts" / "load", "--headless", "--json", *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | environment)
    rows = json.loads(ran.stdout) if ran.stdout.strip().startswith("[") else []
    return ran, {row["name"]: row for row in rows}


def test_pictures_are_sent_over_rest_and_over_kserve_in_binary(service, tmp_path):
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(SHAPES, tmp_path / name)
    ran, rows = load(
        "--host", service.url, "-u", 4, "-r", 4, "-t", "4s", "--what", "rest,kserve",
        "--model", "yolo", "--track", "nano_gpu_e2e", IMAGES_PATH=str(tmp_path),
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert set(rows) == {"/predict/nano_gpu_e2e", "/v2/models/yolo/infer"}
    for row in rows.values():
        assert row["num_requests"] > 3
        assert row["num_failures"] == 0


def test_a_service_that_refuses_makes_the_run_fail(service):
    ran, rows = load("--host", service.url, "-u", 1, "-t", "2s", "--track", "huge")
    assert ran.returncode == 1
    assert rows["/predict/huge"]["num_failures"] == rows["/predict/huge"]["num_requests"] > 0


def test_a_service_that_is_not_there_ends_the_run_before_any_request():
    ran, rows = load("--host", "http://127.0.0.1:9", "-u", 1, "-t", "60s")
    assert (ran.returncode, rows) == (1, {})
    assert ran.stderr.splitlines()[-1].startswith("error: http://127.0.0.1:9 can't be reached: [Errno 111]"), ran.stderr


def test_chats_are_measured_by_their_tokens(languages):
    ran, rows = load("--host", languages.url, "-u", 4, "-r", 4, "-t", "4s", "--what", "chat", "--max-tokens", 20)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert set(rows) == {"/v1/chat/completions", "first token", "between tokens"}
    whole, first, between = (rows[name] for name in ("/v1/chat/completions", "first token", "between tokens"))
    assert whole["num_failures"] == 0
    assert first["num_requests"] == between["num_requests"] >= whole["num_requests"] > 3
    assert 0 < between["total_response_time"] < first["total_response_time"]


def test_what_can_not_be_sent_is_refused_before_the_run():
    for arguments, message in (
        (("--what", "video"), "--what: 'video' is not one of rest, kserve, chat"),
        (("--pictures", "/nowhere"), "/nowhere: there is no such file or folder"),
    ):
        ran, _ = load("-u", 1, "-t", "2s", *arguments)
        assert ran.returncode != 0
        assert message in ran.stderr

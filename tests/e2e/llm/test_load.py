"""`scripts/load` on a language model: beside whole answers, the time to the first token and between tokens."""

import json
import subprocess
import sys

import pytest

from serve_app.settings import PROJECT_ROOT

pytestmark = pytest.mark.e2e


def test_chats_are_measured_by_their_tokens(languages):
    command = [sys.executable, PROJECT_ROOT / "scripts" / "load", "--headless", "--json", "--what", "chat"]
    command += ["--host", languages.url, "-u", "4", "-r", "4", "-t", "8s", "--max-tokens", "20"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr[-2000:]
    rows = {row["name"]: row for row in json.loads(ran.stdout)}
    assert set(rows) == {"/v1/chat/completions", "first token", "between tokens"}
    whole, first, between = (rows[name] for name in ("/v1/chat/completions", "first token", "between tokens"))
    assert whole["num_failures"] == 0
    assert first["num_requests"] == between["num_requests"] >= whole["num_requests"] > 3
    assert 0 < between["total_response_time"] < first["total_response_time"]

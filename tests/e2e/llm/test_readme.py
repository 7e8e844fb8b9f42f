"""What the README tells people to type at a language model works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from serve_app.settings import PROJECT_ROOT

pytestmark = pytest.mark.e2e
README = (PROJECT_ROOT / "README.md").read_text()
CURL = 'curl() { command curl --silent --show-error --fail-with-body --max-time 60 "$@"; }'
ROWS = [line for line in README.splitlines() if line.startswith("|")]
SPANS = [span for row in ROWS for span in re.findall(r"`((?:curl|scripts/llm_client) [^`]+)`", row)]
COMMANDS = [span for span in SPANS if "-llm" in span or "/v1" in span or "llm_client" in span]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_tables_is_answered(command, languages, pairs, tmp_path):
    for name in ("docs", "scripts"):
        (tmp_path / name).symlink_to(PROJECT_ROOT / name)
    client = f"scripts/llm_client --url {languages.grpc_host} "
    command = command.replace("scripts/llm_client ", f"{Path(sys.executable)} {client}")
    script = f"set -e; {CURL}; P={languages.host}; {command}"
    run = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stdout[-500:] + run.stderr[-500:]
    if '"temperature": 0' in command:
        assert pairs[0].answer in run.stdout


def test_the_table_has_commands():
    assert len(COMMANDS) == 7

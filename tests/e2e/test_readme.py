"""What the README tells people to type works as it stands there."""

import re
import subprocess
import sys

import pytest

from serve_app.settings import PROJECT_ROOT

pytestmark = pytest.mark.e2e
README = (PROJECT_ROOT / "README.md").read_text()
CURL = 'curl() { command curl --silent --show-error --fail-with-body --max-time 60 "$@"; }'
ROWS = [line for line in README.splitlines() if line.startswith("|")]
SPANS = [span for row in ROWS for span in re.findall(r"`(curl [^`]+)`", row)]
# tests/e2e/llm has a service with language models
COMMANDS = [
    span for span in SPANS if "NAME" not in span and "…" not in span and "-llm" not in span and "/v1" not in span
]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_tables_is_answered(command, service, tmp_path):
    (tmp_path / "docs").symlink_to(PROJECT_ROOT / "docs")
    script = f"set -e; {CURL}; P={service.host}; I='-F image=@docs/shapes.jpg'; {command}"
    run = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, timeout=100)
    assert run.returncode == 0, run.stdout[-500:] + run.stderr[-500:]


def test_the_tables_have_commands():
    assert len(COMMANDS) > 15


@pytest.mark.parametrize("program", PYTHON)
def test_a_program_prints_what_its_comment_says(program, service):
    expected = re.findall(r"print\(.*#\s*(.+)", program)
    program = program.replace("localhost:8001", service.grpc_host).replace("localhost:8000", service.host)
    run = subprocess.run([sys.executable, "-c", program], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == " ".join(expected).split()

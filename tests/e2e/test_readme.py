"""What the README tells people to type works as it stands there."""

import re
import subprocess
import sys

from serve_app.settings import PROJECT_ROOT

README = (PROJECT_ROOT / "README.md").read_text()
CURL = 'curl() { command curl --silent --show-error --fail-with-body --max-time 60 "$@"; }'
ROWS = [line for line in README.splitlines() if line.startswith("|")]
SPANS = [span for row in ROWS for span in re.findall(r"`((?:curl|scripts/llm_client) [^`]+)`", row)]
COMMANDS = [span for span in SPANS if "NAME" not in span and "…" not in span]
PROGRAMS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_commands_of_the_tables_are_answered(languages, service, pairs, tmp_path):
    for name in ("docs", "scripts"):
        (tmp_path / name).symlink_to(PROJECT_ROOT / name)
    failed = {}
    for command in COMMANDS:
        line = command.replace("scripts/llm_client ", f"{sys.executable} scripts/llm_client --url {service.grpc_host} ")
        script = f"set -e; {CURL}; P={service.host}; I='-F image=@docs/shapes.jpg'; {line}"
        run = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, timeout=100)
        answered = pairs[0].answer.encode() in run.stdout or '"temperature": 0' not in command
        if run.returncode or not answered:
            failed[command] = run.stdout[-500:] + run.stderr[-500:]
    assert failed == {}
    assert len(COMMANDS) > 22


def test_programs_print_what_their_comments_say(service):
    for program in PROGRAMS:
        expected = re.findall(r"print\(.*#\s*(.+)", program)
        local = program.replace("localhost:8001", service.grpc_host).replace("localhost:8000", service.host)
        command = [sys.executable, "-c", local]
        run = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=100)
        assert run.returncode == 0, run.stderr
        assert run.stdout.split() == " ".join(expected).split()
    assert PROGRAMS

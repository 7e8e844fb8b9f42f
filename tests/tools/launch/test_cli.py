"""`scripts/serve` as a command: its help, its errors, and Ctrl-C while it checks."""

import os
import signal
import subprocess
import sys

from serve_app.settings import PROJECT_ROOT

SERVE = [sys.executable, str(PROJECT_ROOT / "scripts" / "serve")]


def test_the_help_names_the_configuration_and_an_unknown_file_is_an_error(tmp_path):
    answer = subprocess.run([*SERVE, "--help"], capture_output=True, text=True)
    assert answer.returncode == 0
    assert "serve run" in answer.stdout
    assert "configs/serve.yaml" in answer.stdout
    missing = tmp_path / "missing.yaml"
    answer = subprocess.run([*SERVE, str(missing)], capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith("error: ")
    assert str(missing) in answer.stderr


def test_sigint_ends_the_checks_even_if_it_was_ignored_at_the_start(tmp_path):
    config = tmp_path / "serve.yaml"
    os.mkfifo(config)  # the command waits here until somebody writes
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *SERVE, str(config)], stderr=subprocess.PIPE, text=True
    )
    with config.open("w"):
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")

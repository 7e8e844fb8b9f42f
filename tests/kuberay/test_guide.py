"""What kuberay/README.md tells the reader to type is accepted."""

import contextlib
import io
import re
import runpy
import shlex
import subprocess
import sys

import pytest

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.deploy.manifests import render
from serve_app.tools.deploy.scenarios.scenario import read_scenario, scenario_names

GUIDE = (PROJECT_ROOT / "kuberay" / "README.md").read_text()


def test_every_override_of_the_guide_renders_for_some_scenario():
    table = GUIDE.split("each with a `--set` of its own:")[1].split("`render` prints")[0]
    rows = [[shlex.split(one)[0] for one in re.findall(r"`([^`]*=[^`]*)`", row)] for row in table.splitlines()]
    rows = [row for row in rows if row]
    assert len(rows) == 10
    for overrides in rows:
        llama2 = ["config=configs/serve.llama2.yaml"] if "tensor_parallel_size=8" in overrides[0] else []
        refused = []
        for name in scenario_names():
            try:
                render(read_scenario(name, [*llama2, *overrides]))
            except ConfigurationError as error:
                refused.append(error.message)
        assert len(refused) < len(scenario_names()), refused


def test_every_command_of_the_guide_has_the_options_that_it_is_given(monkeypatch):
    """By its own help, so that a typo or a removed option is noticed."""
    blocks = re.findall(r"(?ms)^```\n(.*?)^```$", GUIDE)
    lines = {line.split("  #")[0].strip(" &") for block in blocks for line in block.splitlines()}
    commands = [shlex.split(line) for line in lines if line.startswith("scripts/")]
    assert len(commands) > 12
    for script, *words in commands:
        help_text = help_of(
            script, words[:1] if script in ("scripts/deploy", "scripts/models", "scripts/keys") else [], monkeypatch
        )
        for word in words:
            if word.startswith("-"):
                assert re.search(rf"(?<![\w-]){re.escape(word)}\b", help_text), f"{script} has no {word}"


def help_of(script, subcommand, monkeypatch):
    if script == "scripts/load":  # which replaces its process by Locust's
        command = [sys.executable, str(PROJECT_ROOT / script), "--help"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    monkeypatch.setattr("sys.argv", [script, *subcommand, "--help"])
    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit) as ended:
        runpy.run_path(str(PROJECT_ROOT / script), run_name="__main__")
    assert not ended.value.code, script
    return output.getvalue()


def test_links_lead_somewhere():
    for path in re.findall(r"\]\(([^)#]+)\)", GUIDE):
        assert path.startswith("https://") or (PROJECT_ROOT / "kuberay" / path).exists(), path

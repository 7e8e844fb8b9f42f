"""What kuberay/README.md tells to type is there to be typed."""

import re
import shlex
import subprocess
import sys

import pytest

from serve_app.errors import ConfigurationError
from serve_app.settings import PROJECT_ROOT
from serve_app.tools.deploy.manifests import render
from serve_app.tools.deploy.scenarios.scenario import read_scenario, scenario_names

GUIDE = (PROJECT_ROOT / "kuberay" / "README.md").read_text()
BLOCKS = re.findall(r"(?ms)^```\n(.*?)^```$", GUIDE)
COMMANDS = sorted(
    {line.split("  #")[0].strip(" &") for block in BLOCKS for line in block.splitlines() if line.startswith("scripts/")}
)
TABLE = GUIDE.split("asked for, each with a `--set` of its own:")[1].split("`render` prints")[0]
ROWS = [
    [shlex.split(one)[0] for one in re.findall(r"`([^`]*=[^`]*)`", row)] for row in TABLE.splitlines() if "=" in row
]


def test_the_guide_has_commands_and_overrides():
    assert len(COMMANDS) > 12
    assert len(ROWS) == 7


@pytest.mark.parametrize("overrides", ROWS, ids=lambda row: row[0].partition("=")[0])
def test_what_can_be_set_renders_for_a_scenario(overrides):
    refused = []
    for name in scenario_names():
        llama2 = ["config=configs/serve.llama2.yaml"] if "tensor_parallel_size=8" in overrides[0] else []
        try:
            render(read_scenario(name, [*llama2, *overrides]))
        except ConfigurationError as problem:
            refused.append(problem.message)
    assert len(refused) < len(scenario_names()), refused


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_guide_has_the_options_it_is_given(line):
    """Its own help names the command and each option, so that a typo or an option that went away is seen."""
    script, *words = shlex.split(line.replace("$S", "yolo-gpu"))
    below = words[:1] if script in ("scripts/deploy", "scripts/models") else []
    answer = subprocess.run(
        [sys.executable, script, *below, "--help"], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60
    )
    assert answer.returncode == 0, answer.stderr
    for word in words:
        if word.startswith("-"):
            assert re.search(rf"(?<![\w-]){re.escape(word)}\b", answer.stdout), f"{script} has no {word}"


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#]+)\)", GUIDE))))
def test_links_lead_somewhere(path):
    assert path.startswith("https://") or (PROJECT_ROOT / "kuberay" / path).exists()

"""The committed chart is what the scenarios give, and its expressions have values; tests/kubernetes renders it."""

import importlib.metadata
import re

import pytest
import yaml

from serve_app.errors import ConfigurationError
from serve_app.tools.deploy.chart import chart_files, find
from serve_app.tools.deploy.cli import main
from serve_app.tools.deploy.scenarios.files import CHART, SMALLEST
from serve_app.tools.deploy.scenarios.scenario import read_scenario, scenario_names

VERSION = importlib.metadata.version("serve_app")


@pytest.fixture(scope="module")
def files():
    names = sorted(scenario_names(), key=lambda name: name != SMALLEST)
    return chart_files([read_scenario(name) for name in names], VERSION)


def test_the_committed_chart_is_what_the_scenarios_give(files):
    committed = {str(path.relative_to(CHART)): path.read_text() for path in CHART.rglob("*") if path.is_file()}
    assert committed == files, "run scripts/deploy chart"


def test_every_expression_has_a_value_of_its_scenario_and_every_value_an_expression(files):
    for scenario in scenario_names():
        template, values = (files[f"{folder}/{scenario}.yaml"] for folder in ("templates", "values"))
        values = yaml.safe_load(values)
        used = {key for key in re.findall(r"\.Values\.([\w.]+)", template) if key != "scenario"}
        assert [key for key in used if find(values, key) is None] == []
        for key, value in values.items():
            names = [f"{key}.{below}" for below in value] if isinstance(value, dict) and key != "environment" else [key]
            assert [one for one in names if key != "scenario" and not any(name.startswith(one) for name in used)] == []


def test_a_chart_of_a_scenario_of_ones_own_has_its_values(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main("deploy", ["chart", "yolo-gpu", "--set", "workers.vision.max=3", "--output", str(tmp_path / "mine")])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"wrote {tmp_path / 'mine'}\n")
    values = yaml.safe_load((tmp_path / "mine" / "values.yaml").read_text())
    assert (values["scenario"], values["workers"]["vision"]["max"]) == ("yolo-gpu", 3)
    assert {path.name for path in (tmp_path / "mine" / "templates").iterdir()} == {"yolo-gpu.yaml", "check.yaml"}


def test_the_committed_chart_takes_no_changes():
    for arguments in (["yolo-gpu"], ["--set", "images.tag=2"]):
        with pytest.raises(SystemExit) as ended:
            main("deploy", ["chart", *arguments])
        assert ended.value.code == 2


def test_what_no_value_can_replace_is_an_error(monkeypatch):
    monkeypatch.setattr("serve_app.tools.deploy.chart.with_free_values", lambda text, scenario: text)
    with pytest.raises(ConfigurationError, match="local-cpu is rendered with OF_THE_CHART"):
        chart_files([read_scenario("local-cpu")], VERSION)

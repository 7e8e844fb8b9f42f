from pathlib import Path

import pytest
import yaml

from serve_app.tools.deploy import manifests
from serve_app.tools.deploy.scenarios.scenario import read_scenario, scenario_names

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize("scenario", scenario_names())
def test_render_prints_what_is_committed_and_what_is_applied(deploy, scenario):
    ended = deploy("render", scenario)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == (ROOT / "kuberay" / f"rayservice.{scenario}.yaml").read_text()
    assert list(yaml.safe_load_all(ended.out)) == manifests.render(read_scenario(scenario))


def test_render_takes_overrides_and_a_namespace_and_writes_a_file(deploy, tmp_path):
    file = tmp_path / "out.yaml"
    ended = deploy("render", "local-cpu", "--set", "name=two", "--namespace", "there", "--output", file)
    assert (ended.status, ended.out) == (0, f"wrote {file}\n")
    *_, service = yaml.safe_load_all(file.read_text())
    assert (service["metadata"]["name"], service["metadata"]["namespace"]) == ("two", "there")


def test_a_file_that_cannot_be_written_is_named(deploy, tmp_path):
    ended = deploy("render", "local-cpu", "--output", tmp_path / "no" / "out.yaml")
    assert ended.status == 2
    assert ended.err == f"error: {tmp_path}/no/out.yaml: No such file or directory\n"


def test_what_is_committed_takes_no_overrides(deploy):
    ended = deploy("render", "local-cpu", "--write", "--set", "name=two")
    assert ended.status == 2
    assert "--write: the committed file is the scenario as it is" in ended.err

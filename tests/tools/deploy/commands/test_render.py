from pathlib import Path

import yaml

from serve_app.tools.deploy import manifests
from serve_app.tools.deploy.scenarios.scenario import read_scenario, scenario_names

ROOT = Path(__file__).resolve().parents[4]


def test_render_prints_the_committed_file_and_what_is_applied(deploy):
    for scenario in scenario_names():
        ended = deploy("render", scenario)
        assert (ended.status, ended.err) == (0, "")
        assert ended.out == (ROOT / "kuberay" / "manifests" / scenario / "rayservice.yaml").read_text()
        assert list(yaml.safe_load_all(ended.out)) == manifests.render(read_scenario(scenario))


def test_render_writes_a_file_with_overrides_and_a_namespace(deploy, tmp_path):
    file = tmp_path / "out.yaml"
    ended = deploy("render", "local-cpu", "--set", "name=two", "--namespace", "there", "--output", file)
    assert (ended.status, ended.out) == (0, f"wrote {file}\n")
    *_, service = yaml.safe_load_all(file.read_text())
    assert (service["metadata"]["name"], service["metadata"]["namespace"]) == ("two", "there")


def test_what_cannot_be_written_is_refused(deploy, tmp_path):
    for arguments, message in (
        (["--output", tmp_path / "no" / "out.yaml"], f"error: {tmp_path}/no/out.yaml: No such file or directory\n"),
        (["--write", "--set", "name=two"], "error: --write updates the committed file: remove --set and --namespace\n"),
    ):
        ended = deploy("render", "local-cpu", *arguments)
        assert (ended.status, ended.err) == (2, message)

"""What the API server itself says of the manifests, and of who may apply them."""

import pytest
import yaml

from serve_app.tools.deploy.scenarios.scenario import scenario_names
from tests.kubernetes.cluster import places
from tests.kubernetes.conftest import NAMESPACE, ONE_POD

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]
KUBERAY = places.ROOT / "kuberay"
CRDS = places.ROOT / "tests" / "tools" / "deploy" / "crds"
OTHERS = ("karpenter.k8s.aws_ec2nodeclasses", "karpenter.sh_nodepools", "monitoring.coreos.com_podmonitors",
          "monitoring.coreos.com_prometheusrules", "monitoring.coreos.com_servicemonitors")  # fmt: skip


@pytest.fixture(scope="module")
def strict(kubernetes):
    """`strict(text)`: applied in a dry run, with unknown fields refused; the objects that were accepted."""
    for name in OTHERS:
        assert kubernetes.kubectl("apply", "--server-side", f"--filename={CRDS / name}.yaml").returncode == 0
    for namespace in (NAMESPACE, "monitoring"):
        kubernetes.kubectl("create", "namespace", namespace)

    def apply(text):
        arguments = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-", "--output=name")
        answer = kubernetes.kubectl(*arguments, "--force-conflicts", text=text)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.split()

    yield apply
    for namespace in (NAMESPACE, "monitoring"):
        kubernetes.kubectl("delete", "namespace", namespace)


@pytest.mark.parametrize("scenario", scenario_names())
def test_a_scenario_is_valid_for_the_server(strict, deploy, scenario):
    text = deploy("render", scenario).out
    assert len(strict(text)) == len(list(yaml.safe_load_all(text)))


@pytest.mark.parametrize("file", ["karpenter.nodeclasses", "karpenter.nodepools", "monitoring", "storageclass.gp3"])
def test_what_the_cluster_needs_beside_it_is_valid_for_the_server(strict, file):
    assert strict((KUBERAY / "cluster" / f"{file}.yaml").read_text())


def test_the_first_up_takes_an_administrator_and_names_what_others_lack(deploy):
    for user in ("deployer", "viewer", "nobody"):
        refused = deploy("up", *ONE_POD, user=user, expect=2)
        assert "may not" in refused.err, user
        assert "nothing was changed" in refused.err

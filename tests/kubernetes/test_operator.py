"""An operator that may work in one namespace only, as `singleNamespaceInstall` of KubeRay's chart makes it."""

import json

import httpx
import pytest

from tests.kubernetes.cluster import places
from tests.kubernetes.conftest import NAMESPACE, PICTURES
from tests.load import PICTURE

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(1200)]
OPERATOR, ITS_NAMESPACE = "kuberay-operator", "kuberay-system"
BOUND = ("clusterrolebinding", OPERATOR)


@pytest.fixture
def narrow_operator(kubernetes):
    """Its role bound in the service's namespace alone, which is all that it watches."""

    def run(*arguments):
        answer = kubernetes.kubectl(*arguments)
        assert answer.returncode == 0, answer.stderr

    run("create", "namespace", NAMESPACE)
    run("delete", *BOUND)
    account = f"{ITS_NAMESPACE}:{OPERATOR}"
    run("create", "rolebinding", OPERATOR, f"--clusterrole={OPERATOR}", f"--serviceaccount={account}", f"-n{NAMESPACE}")
    argument = {
        "op": "add",
        "path": "/spec/template/spec/containers/0/args/-",
        "value": f"--watch-namespace={NAMESPACE}",
    }
    run("patch", "deployment", OPERATOR, f"-n{ITS_NAMESPACE}", "--type=json", f"--patch={json.dumps([argument])}")
    run("rollout", "status", f"deployment/{OPERATOR}", f"-n{ITS_NAMESPACE}", "--timeout=120s")
    yield
    run("apply", f"--filename={places.MANIFESTS / 'operator.yaml'}")
    run("rollout", "status", f"deployment/{OPERATOR}", f"-n{ITS_NAMESPACE}", "--timeout=120s")
    run("delete", "namespace", NAMESPACE)


def test_a_namespaced_operator_serves_its_namespace_and_up_refuses_others(narrow_operator, kubernetes, deploy, case):
    refused = deploy("up", *PICTURES, "--namespace", "elsewhere", expect=2)
    assert f"no KubeRay operator watches the namespace elsewhere, only {NAMESPACE}" in refused.err
    with case("one pod with pictures alone, by an operator of one namespace, up and down"):
        deploy("up", *PICTURES)
        answer = httpx.post(f"{kubernetes.url()}/predict/nano", content=PICTURE, timeout=60)
        assert answer.json()["num_detections"] == 6
        deploy("down", *PICTURES, "--yes")

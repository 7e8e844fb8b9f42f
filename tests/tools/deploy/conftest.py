"""What tests of the deploy tool share: a Kubernetes API server over real HTTP that acts as KubeRay's operator too."""

import base64
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml

from serve_app.tools.deploy.api.connection import connect
from serve_app.tools.deploy.api.objects import Objects

HERE = Path(__file__).resolve().parent
PACE = 0.02
API_VERSIONS = {
    "ConfigMap": "v1",
    "Namespace": "v1",
    "Pod": "v1",
    "Secret": "v1",
    "Service": "v1",
    "ServiceAccount": "v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "PodDisruptionBudget": "policy/v1",
    "RayCluster": "ray.io/v1",
    "RayService": "ray.io/v1",
    "Role": "rbac.authorization.k8s.io/v1",
    "RoleBinding": "rbac.authorization.k8s.io/v1",
}


@dataclass
class Kubernetes:
    """A cluster as a test sees it."""

    url: str
    secure_url: str
    certificate: str
    folder: Path

    @property
    def kubeconfig(self):
        return self.kubeconfig_for("admin")

    def kubeconfig_for(self, token, server=None):
        """Path of a kubeconfig for that token; `server` replaces this server's address."""
        path = self.folder / f"kubeconfig.{token}.yaml"
        authority = base64.b64encode(self.certificate.encode()).decode()
        written = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {"server": server or self.secure_url, "certificate-authority-data": authority},
                }
            ],
            "users": [{"name": token, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": token}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(written))
        return str(path)

    def user(self, token, *rules):
        """Kubeconfig of a user with these RBAC rules."""
        self.control(token={"token": token, "user": token, "rules": list(rules)})
        return self.kubeconfig_for(token)

    def control(self, **wanted):
        """What the server's control endpoint answers; see kubernetes_api/control.py."""
        status, answer = self.request("POST", "/_control", wanted)
        assert status == 200, answer
        return answer

    def request(self, method, path, body=None, media="application/json"):
        """(status, body) of one request by the administrator."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": media, "Authorization": "Bearer admin"}
        try:
            with urlopen(Request(self.url + path, data, headers, method=method), timeout=30) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, error.read().decode()

    def create(self, path, manifest):
        status, answer = self.request("POST", path, manifest)
        assert status == 201, answer

    def merge(self, path, patch):
        status, answer = self.request("PATCH", path, patch, "application/merge-patch+json")
        assert status == 200, answer

    def objects(self, kind, namespace=None, selector=""):
        """All objects of a kind, of one namespace or all."""
        return Objects(connect(self.kubeconfig)).list(API_VERSIONS[kind], kind, namespace, selector)

    def object(self, kind, name, namespace=None):
        return next((one for one in self.objects(kind, namespace) if one["metadata"]["name"] == name), None)

    def until(self, holds, timeout_s=20):
        """What `holds()` returns once it is true."""
        ends = time.monotonic() + timeout_s
        while not (answer := holds()):
            assert time.monotonic() < ends, "the cluster never reached the state that the test waits for"
            self.control(turns=1)
        return answer


@pytest.fixture(scope="session")
def kubernetes_process(tmp_path_factory):
    """Addresses of one server for all tests; each test starts with a new cluster."""
    announced = tmp_path_factory.mktemp("kubernetes") / "addresses.json"
    command = [sys.executable, str(HERE / "kubernetes_api"), "--pace", str(PACE), "--crds", str(HERE / "crds")]
    process = subprocess.Popen([*command, "--announce", str(announced)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().startswith("listening on "), "the Kubernetes API server didn't start"
        yield json.loads(announced.read_text())
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture
def kubernetes(kubernetes_process, tmp_path):
    """A new cluster: KubeRay 1.7's operator and CRDs, three nodes, the token `admin`."""
    cluster = Kubernetes(**kubernetes_process, folder=tmp_path)
    cluster.control(reset={})
    yield cluster
    assert cluster.control(errors=True) == {"errors": []}

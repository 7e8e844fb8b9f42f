"""What tests of the deployment share: a Kubernetes API server over real HTTP, with KubeRay's operator at play."""

import base64
import json
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml
from kubernetes import client, config, dynamic

HERE = Path(__file__).resolve().parent
PACE = 0.03
TINY = "/apis/ray.io/v1/namespaces/default/rayservices/tiny"


@dataclass
class Kubernetes:
    """A cluster as a test sees it."""

    url: str
    secure_url: str
    certificate: str
    folder: Path

    @property
    def kubeconfig(self) -> str:
        return self.kubeconfig_for("admin")

    def kubeconfig_for(self, token, namespace="default", server=None):
        """Path of a kubeconfig for that token; `server` instead of this one's address."""
        path = self.folder / f"kubeconfig.{token}.{namespace}.yaml"
        authority = base64.b64encode(self.certificate.encode()).decode()
        cluster = {"server": server or self.secure_url, "certificate-authority-data": authority}
        written = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": token, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": token, "namespace": namespace}}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(written))
        return str(path)

    def control(self, **wanted):
        """What the server's control endpoint answers; see kubernetes_api/control.py."""
        body = json.dumps(wanted).encode()
        request = Request(f"{self.url}/_control", data=body, headers={"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def client(self, token="admin") -> client.ApiClient:
        return config.new_client_from_config(self.kubeconfig_for(token))

    def dynamic(self, token="admin") -> dynamic.DynamicClient:
        # without a file of its own it takes over what an earlier test's cluster served at this address
        return dynamic.DynamicClient(self.client(token), cache_file=str(self.folder / f"discovery.{uuid.uuid4()}"))

    def request(self, method, path, body=None, token="admin", media="application/json"):
        """(status, body) of one request without any client library."""
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": media, **({"Authorization": f"Bearer {token}"} if token else {})}
        request = Request(self.url + path, data=data, method=method, headers=headers)
        request.add_header("User-Agent", "test/1")
        return answered(request)

    def objects(self, kind, namespace=None, selector=None):
        """Plain dicts of all objects of a kind ("Pod", "RayService", …), of one namespace or all."""
        api = self.dynamic()
        found = [one for one in api.resources.search(kind=kind) if one.kind == kind]
        listed = found[0].get(namespace=namespace, label_selector=selector)
        return [item.to_dict() for item in listed.items]

    def object(self, kind, name, namespace=None):
        """One object as a plain dict; None where there is none."""
        return next((one for one in self.objects(kind, namespace) if one["metadata"]["name"] == name), None)

    def until(self, holds, timeout_s=20):
        """What `holds()` answers when it first answers something true."""
        ends = time.monotonic() + timeout_s
        while not (answer := holds()):
            assert time.monotonic() < ends, "the cluster never came to be as the test waits for it"
            self.control(turns=1)
        return answer


def answered(request):
    try:
        with urlopen(request, timeout=30) as answer:
            status, text = answer.status, answer.read().decode()
    except HTTPError as error:
        status, text = error.code, error.read().decode()
    return status, json.loads(text) if text.startswith("{") else text


@pytest.fixture(scope="session")
def kubernetes_process(tmp_path_factory):
    """Addresses of one server for all tests; each begins with a cluster of its own."""
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
    """A new cluster: KubeRay 1.7's operator and its CRDs, three nodes, the token `admin`."""
    cluster = Kubernetes(**kubernetes_process, folder=tmp_path)
    cluster.control(reset={})
    yield cluster
    assert cluster.control(errors=True) == {"errors": []}


@dataclass
class Tiny:
    """The small RayService in its cluster."""

    kubernetes: Kubernetes
    body: dict

    def apply(self, **changes):
        self.body["spec"] |= changes
        path = f"{TINY}?fieldManager=test&force=true&fieldValidation=Strict"
        status, body = self.kubernetes.request("PATCH", path, self.body, media="application/apply-patch+yaml")
        assert status in (200, 201), body

    def status(self):
        return self.kubernetes.request("GET", TINY)[1].get("status", {})

    def condition(self, kind):
        return next((one for one in self.status().get("conditions", ()) if one["type"] == kind), {})

    def ready(self):
        """Its status, as soon as it serves."""
        self.kubernetes.until(lambda: self.condition("Ready").get("status") == "True")
        return self.status()

    def pods(self, group):
        return self.kubernetes.objects("Pod", "default", f"ray.io/group={group}")

    def events(self, name=""):
        """Reasons of the events about what has that in its name."""
        found = self.kubernetes.objects("Event", "default")
        return {one["reason"] for one in found if name in one["involvedObject"]["name"]}


@pytest.fixture
def tiny(kubernetes, rayservice):
    return Tiny(kubernetes, rayservice)


@pytest.fixture
def rayservice():
    """A small RayService of one head and one group of two workers."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "tiny", "namespace": "default"},
        "spec": {
            "serveConfigV2": yaml.safe_dump(
                {"applications": [{"name": "app", "args": {"triton": [{"name": "vision"}]}}]}
            ),
            "rayClusterDeletionDelaySeconds": 1,
            "rayClusterConfig": {
                "rayVersion": "2.60.0",
                "headGroupSpec": {"rayStartParams": {}, "template": pod_template("ray-head")},
                "workerGroupSpecs": [
                    {
                        "groupName": "vision",
                        "replicas": 2,
                        "minReplicas": 1,
                        "maxReplicas": 4,
                        "rayStartParams": {},
                        "template": pod_template("ray-worker", {"nvidia.com/gpu": "1"}),
                    }
                ],
            },
        },
    }


def pod_template(name, resources=None):
    container = {"name": name, "image": "registry.test/ray:1", "ports": [{"containerPort": 8000, "name": "serve"}]}
    return {"spec": {"containers": [container | {"resources": {"limits": resources or {"cpu": "1"}}}]}}

"""One cluster: its objects, kinds, users and what plays in it; how a test sets it up and starts it anew."""

from functools import cache
from pathlib import Path

import yaml

from kubernetes_api.access import Access
from kubernetes_api.deletion import Deletion
from kubernetes_api.kinds import Catalogue
from kubernetes_api.kuberay.troubles import Troubles
from kubernetes_api.store import Store
from kubernetes_api.writing import Wish, Writing

NAMESPACES = ("default", "kube-system", "kube-public", "kuberay-system")
NODES = {
    "ip-10-0-1-11.ec2.internal": ("m5.2xlarge", {"cpu": "8", "memory": "32Gi"}),
    "ip-10-0-1-12.ec2.internal": ("g5.2xlarge", {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}),
    "ip-10-0-1-13.ec2.internal": ("g5.2xlarge", {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"}),
}


class Cluster:
    def __init__(self, definitions: Path | None = None):
        self.definitions = definitions
        self.reset()

    def reset(self, definitions=True):
        """A new cluster with the operator in it; `definitions` says whether the CRDs are there."""
        self.store = Store()
        self.catalogue = Catalogue()
        self.writing = Writing(self.store, self.catalogue)
        self.deletion = Deletion(self.store, self.catalogue)
        self.access = Access()
        self.troubles = Troubles()
        self.errors: list[str] = []  # of what plays: a mistake in this package
        self.requests: list[dict] = []
        self.failing: list[dict] = []  # answers that are given instead of the next ones
        self.forwarded: dict[int, int] = {}  # port of a pod → port of this machine
        self.logs: dict[str, list[str]] = {}  # part of a pod's name → its lines
        self.serving: set[str] = set()  # RayClusters where Serve's proxies answer
        self.epoch = object()  # what plays forgets the cluster that was before
        self.furnish(definitions)

    def furnish(self, definitions):
        for name in NAMESPACES:
            self.create("Namespace", {"metadata": {"name": name}})
        for name, (machine, capacity) in NODES.items():
            self.create("Node", node(name, machine, capacity))
        self.create("StorageClass", {"metadata": {"name": "gp3"}, "provisioner": "ebs.csi.aws.com"})
        if definitions and self.definitions:
            for definition in read_definitions(self.definitions):
                self.create("CustomResourceDefinition", definition)
        self.install_operator("v1.7.0")

    def create(self, name, body, group=None):
        """An object of this server's own making."""
        kind = next(kind for kind in self.catalogue.kinds.values() if kind.kind == name and group in (None, kind.group))
        namespace = body["metadata"].get("namespace", "default") if kind.namespaced else ""
        status = body.get("status")
        kept = self.writing.create(kind, namespace, body, Wish(manager="kubernetes-api"))
        if status is not None:
            key = self.writing.key(kind, namespace, kept["metadata"]["name"])
            kept = self.store.put(key, kept | {"status": status})
        return kept

    def install_operator(self, version):
        """The Deployment of KubeRay's operator in that version; None takes it away."""
        kind = self.catalogue.named("Deployment", "apps")
        key = self.writing.key(kind, "kuberay-system", "kuberay-operator")
        if self.store.get(key):
            self.deletion.drop(key)
        if version is not None:
            self.create("Deployment", operator_deployment(version))


@cache
def read_definitions(folder):
    return [yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader) for path in sorted(folder.glob("*.yaml"))]


def node(name, machine, capacity):
    labels = {
        "node.kubernetes.io/instance-type": machine,
        "kubernetes.io/hostname": name,
        "kubernetes.io/arch": "amd64",
    }
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"}
    status = {"capacity": capacity, "allocatable": capacity, "conditions": [ready]}
    status["addresses"] = [{"type": "InternalIP", "address": "10.0.1." + name.split("-")[4].split(".")[0]}]
    return {"metadata": {"name": name, "labels": labels}, "spec": {"providerID": f"aws:///{name}"}, "status": status}


def operator_deployment(version):
    labels = {"app.kubernetes.io/name": "kuberay-operator", "app.kubernetes.io/component": "kuberay-operator"}
    container = {"name": "kuberay-operator", "image": f"quay.io/kuberay/operator:{version}"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    available = {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"}
    available["message"] = "Deployment has minimum availability."
    status = {
        "replicas": 1,
        "readyReplicas": 1,
        "availableReplicas": 1,
        "updatedReplicas": 1,
        "conditions": [available],
    }
    return {
        "metadata": {"name": "kuberay-operator", "namespace": "kuberay-system", "labels": labels},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        "status": status | {"observedGeneration": 1},
    }

"""EndpointSlices of the Services that select pods."""

from kubernetes_api.podstatus import is_ready
from kubernetes_api.selection import selects
from kubernetes_api.store import Key
from kubernetes_api.writing import Wish


class Endpoints:
    def __init__(self, cluster):
        self.cluster = cluster

    def turn(self):
        for key, service in self.cluster.store.of(("", "services")):
            selector = service["spec"].get("selector")
            if selector and not service["metadata"].get("deletionTimestamp"):
                self.follow(key, service, selector)

    def follow(self, key, service, selector):
        pods = [
            pod
            for _, pod in self.cluster.store.of(("", "pods"), key.namespace)
            if selects(selector, pod["metadata"].get("labels")) and pod.get("status", {}).get("podIP")
        ]
        ports = service["spec"].get("ports") or []
        self.write("EndpointSlice", "discovery.k8s.io", service, slice_of(service, pods, ports))

    def write(self, name, group, service, body):
        kind = self.cluster.catalogue.named(name, group)
        metadata = body["metadata"]
        key = Key(kind.group, kind.plural, metadata["namespace"], metadata["name"])
        live = self.cluster.store.get(key)
        if live is None:
            home = self.cluster.store.get(Key("", "namespaces", "", metadata["namespace"]))
            if home and home["status"]["phase"] == "Active":
                self.cluster.writing.create(kind, metadata["namespace"], body, Wish(manager="kube-controller-manager"))
        elif any(live.get(part) != value for part, value in body.items() if part != "metadata"):
            self.cluster.store.put(key, live | {part: value for part, value in body.items() if part != "metadata"})


def owner(service):
    metadata = service["metadata"]
    return {"apiVersion": "v1", "kind": "Service", "name": metadata["name"], "uid": metadata["uid"], "controller": True}


def reference(pod):
    metadata = pod["metadata"]
    return {"kind": "Pod", "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}


def slice_of(service, pods, ports):
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    listed = []
    for pod in pods:
        ready = is_ready(pod)
        conditions = {"ready": ready, "serving": ready, "terminating": "deletionTimestamp" in pod["metadata"]}
        listed.append({"addresses": [pod["status"]["podIP"]], "conditions": conditions, "targetRef": reference(pod)})
    return {
        "metadata": {
            "name": f"{name}-slice",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name},
            "ownerReferences": [owner(service)],
        },
        "addressType": "IPv4",
        "endpoints": listed,
        "ports": [port_of(port) for port in ports],
    }


def port_of(port):
    number = port["targetPort"] if isinstance(port.get("targetPort"), int) else port["port"]
    found = {"port": number, "protocol": port.get("protocol", "TCP")}
    return found | ({"name": port["name"]} if "name" in port else {})

"""Events about objects: the same one again raises its count."""

from kubernetes_api.admission import random_suffix
from kubernetes_api.times import now
from kubernetes_api.writing import Wish


class Events:
    def __init__(self, cluster):
        self.cluster = cluster
        self.known = {}

    def record(self, about, reason, message, warning=False, source="kuberay-operator"):
        metadata = about["metadata"]
        identity = metadata["uid"], reason, message
        key = self.known.get(identity)
        body = self.cluster.store.get(key) if key else None
        if body is not None:
            self.cluster.store.put(key, body | {"count": body["count"] + 1, "lastTimestamp": now()})
            return
        namespace = metadata.get("namespace", "default")
        involved = {"kind": about["kind"], "apiVersion": about["apiVersion"], "name": metadata["name"]}
        involved |= {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        involved |= {"namespace": metadata["namespace"]} if "namespace" in metadata else {}
        event = {
            "metadata": {"name": f"{metadata['name']}.{random_suffix(16)}"},
            "involvedObject": involved,
            "reason": reason,
            "message": message,
            "type": "Warning" if warning else "Normal",
            "count": 1,
            "source": {"component": source},
            "reportingComponent": source,
        }
        if self.is_ending(namespace):
            return
        kind = self.cluster.catalogue.named("Event")
        kept = self.cluster.writing.create(kind, namespace, event, Wish(manager=source))
        self.known[identity] = self.cluster.writing.key(kind, namespace, kept["metadata"]["name"])

    def is_ending(self, namespace):
        kind = self.cluster.catalogue.named("Namespace")
        home = self.cluster.store.get(self.cluster.writing.key(kind, "", namespace))
        return home is None or home["status"]["phase"] == "Terminating"

"""Deployments, StatefulSets and Jobs at play: their pods, and what their status says of them."""

from copy import deepcopy

from kubernetes_api.admission import random_suffix
from kubernetes_api.conditions import with_condition
from kubernetes_api.podstatus import is_ready
from kubernetes_api.writing import Wish

OPERATORS = "kuberay-system"  # the operator is part of this server and has no pods


class Workloads:
    def __init__(self, cluster, events):
        self.cluster, self.events = cluster, events

    def turn(self):
        for plural in ("deployments", "statefulsets"):
            for key, body in self.cluster.store.of(("apps", plural)):
                if key.namespace != OPERATORS and not body["metadata"].get("deletionTimestamp"):
                    self.follow(key, body)

    def follow(self, key, body):
        wanted = body["spec"].get("replicas", 1)
        pods = [pod for pod in self.pods_of(key, body) if not pod["metadata"].get("deletionTimestamp")]
        for index in range(len(pods), wanted):
            suffix = str(index) if key.plural == "statefulsets" else f"{random_suffix(9)}-{random_suffix()}"
            self.start_pod(body, suffix)
        for pod in pods[wanted:]:
            kind = self.cluster.catalogue.named("Pod")
            self.cluster.deletion.delete(kind, self.key(kind, pod), {})
        ready = sum(is_ready(pod) for pod in pods[:wanted])
        status = status_of(body, wanted, len(pods[:wanted]), ready)
        if status != body.get("status"):
            self.cluster.store.put(key, body | {"status": status})

    def pods_of(self, key, body):
        uid = body["metadata"]["uid"]
        found = [pod for _, pod in self.cluster.store.of(("", "pods"), key.namespace)]
        return [pod for pod in found if any(one["uid"] == uid for one in pod["metadata"].get("ownerReferences", ()))]

    def start_pod(self, body, suffix):
        template = deepcopy(body["spec"]["template"])
        metadata = template.get("metadata", {}) | {"name": f"{body['metadata']['name']}-{suffix}"}
        metadata["ownerReferences"] = [reference(body)]
        kind = self.cluster.catalogue.named("Pod")
        if self.cluster.store.get(self.cluster.writing.key(kind, body["metadata"]["namespace"], metadata["name"])):
            return
        pod = {"metadata": metadata, "spec": template["spec"]}
        self.cluster.writing.create(kind, body["metadata"]["namespace"], pod, Wish(manager="kube-controller-manager"))

    def key(self, kind, body):
        return self.cluster.writing.key(kind, body["metadata"].get("namespace", ""), body["metadata"]["name"])


def reference(body):
    metadata = body["metadata"]
    named = {"apiVersion": body["apiVersion"], "kind": body["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    return named | {"controller": True, "blockOwnerDeletion": True}


def status_of(body, wanted, there, ready):
    status = {"observedGeneration": body["metadata"].get("generation", 1), "replicas": there, "updatedReplicas": there}
    status |= {"readyReplicas": ready, "availableReplicas": ready}
    conditions = body.get("status", {}).get("conditions", [])
    if body["kind"] == "Deployment":
        enough = ready >= wanted
        reason = "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"
        message = f"Deployment {'has' if enough else 'does not have'} minimum availability."
        conditions = with_condition(conditions, "Available", "True" if enough else "False", reason, message)
        status["conditions"] = conditions
    return status

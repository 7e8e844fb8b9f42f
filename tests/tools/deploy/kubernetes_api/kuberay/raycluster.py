"""RayClusters at play: their head and worker pods, their head's Service, and their status."""

from copy import deepcopy

from kubernetes_api import podstatus
from kubernetes_api.admission import random_suffix
from kubernetes_api.conditions import is_true, with_condition
from kubernetes_api.kuberay.services import head_service, reference
from kubernetes_api.times import now
from kubernetes_api.writing import Wish

OPERATOR = Wish(manager="kuberay-operator")
STATUS = Wish(manager="kuberay-operator", subresource="status")


class RayClusters:
    def __init__(self, cluster, events):
        self.cluster, self.events = cluster, events

    def turn(self):
        kind = self.cluster.catalogue.named("RayCluster", "ray.io")
        if kind is None:
            return
        for key, body in self.cluster.store.of(kind.resource):
            if not body["metadata"].get("deletionTimestamp"):
                self.reconcile(kind, key, body)

    def reconcile(self, kind, key, body):
        pods = self.pods_of(key)
        self.ensure_service(body)
        self.ensure_token(body)
        if not any(is_head(pod) for pod in pods):
            self.start_pod(body, "head", body["spec"]["headGroupSpec"])
        for group in body["spec"].get("workerGroupSpecs") or ():
            self.scale(body, group, [pod for pod in pods if label(pod, "group") == group["groupName"]])
        status = self.status(body, self.pods_of(key))
        if status != body.get("status"):
            status["lastUpdateTime"] = now()
            self.cluster.writing.rewrite(kind, body, body | {"status": status}, STATUS)

    def pods_of(self, key):
        found = [pod for _, pod in self.cluster.store.of(("", "pods"), key.namespace)]
        return [
            pod for pod in found if label(pod, "cluster") == key.name and "deletionTimestamp" not in pod["metadata"]
        ]

    def ensure_service(self, body):
        service = head_service(body)
        kind = self.cluster.catalogue.named("Service")
        namespace, name = body["metadata"]["namespace"], service["metadata"]["name"]
        if self.cluster.store.get(self.cluster.writing.key(kind, namespace, name)) is None:
            service["metadata"]["ownerReferences"] = [reference(body)]
            self.cluster.writing.create(kind, namespace, service, OPERATOR)
            self.events.record(body, "CreatedService", f"Created service {namespace}/{name}")

    def ensure_token(self, body):
        """The Secret that Ray's token authentication reads, named after the cluster."""
        if not has_own_token(body):
            return
        kind, namespace = self.cluster.catalogue.named("Secret"), body["metadata"]["namespace"]
        name = body["metadata"]["name"]
        if self.cluster.store.get(self.cluster.writing.key(kind, namespace, name)) is None:
            metadata = {"name": name, "ownerReferences": [reference(body)]}
            secret = {"metadata": metadata, "stringData": {"auth_token": random_suffix(32)}}
            self.cluster.writing.create(kind, namespace, secret, OPERATOR)

    def scale(self, body, group, pods):
        wanted = wanted_replicas(group) * group.get("numOfHosts", 1)
        for _ in range(len(pods), wanted):
            self.start_pod(body, "worker", group)
        for pod in pods[wanted:]:
            kind = self.cluster.catalogue.named("Pod")
            metadata = pod["metadata"]
            key = self.cluster.writing.key(kind, metadata["namespace"], metadata["name"])
            self.cluster.deletion.delete(kind, key)
            message = f"Deleted worker Pod {metadata['namespace']}/{metadata['name']}"
            self.events.record(body, "DeletedWorkerPod", message)

    def start_pod(self, body, role, group):
        pod = pod_of(body, role, group)
        kind, namespace = self.cluster.catalogue.named("Pod"), body["metadata"]["namespace"]
        self.cluster.writing.create(kind, namespace, pod, OPERATOR)
        name = pod["metadata"]["name"]
        self.events.record(body, f"Created{role.title()}Pod", f"Created {role} Pod {namespace}/{name}")

    def status(self, body, pods):
        old = body.get("status", {})
        groups = body["spec"].get("workerGroupSpecs") or ()
        ready = [pod for pod in pods if podstatus.is_ready(pod)]
        head = next((pod for pod in pods if is_head(pod)), None)
        status = {
            "desiredWorkerReplicas": sum(wanted_replicas(group) for group in groups),
            "minWorkerReplicas": sum(group.get("minReplicas") or 0 for group in groups),
            "maxWorkerReplicas": sum(group.get("maxReplicas") or 0 for group in groups),
            "availableWorkerReplicas": sum(podstatus.is_running(pod) and not is_head(pod) for pod in pods),
            "readyWorkerReplicas": sum(not is_head(pod) for pod in ready),
            "observedGeneration": body["metadata"]["generation"],
            "desiredCPU": "0",
            "desiredGPU": "0",
            "desiredMemory": "0",
            "desiredTPU": "0",
        }
        status["conditions"] = conditions(old.get("conditions", []), pods, ready, head)
        service = head_service(body)
        status["head"] = {"serviceName": service["metadata"]["name"]}
        if head and head.get("status", {}).get("podIP"):
            address = head["status"]["podIP"]
            status["head"] |= {"podIP": address, "podName": head["metadata"]["name"], "serviceIP": address}
        status["endpoints"] = {port["name"]: str(port["port"]) for port in service["spec"]["ports"]}
        if is_true({"status": status}, "RayClusterProvisioned"):
            status["state"] = "ready"
            status["stateTransitionTimes"] = old.get("stateTransitionTimes") or {"ready": now()}
        status |= {"lastUpdateTime": old["lastUpdateTime"]} if "lastUpdateTime" in old else {}
        return status


def conditions(old, pods, ready, head):
    if head is None:
        found = with_condition(old, "HeadPodReady", "False", "HeadPodNotFound", "Head Pod not found")
    elif podstatus.is_ready(head):
        found = with_condition(old, "HeadPodReady", "True", "HeadPodRunningAndReady", "Head Pod is ready")
    else:
        names = [one["name"] for one in head["spec"]["containers"]]
        why = f"containers with unready status: [{' '.join(names)}]"
        found = with_condition(old, "HeadPodReady", "False", "ContainersNotReady", why)
    if is_true({"status": {"conditions": old}}, "RayClusterProvisioned"):
        return found
    if pods and len(ready) == len(pods):
        why = "AllPodRunningAndReadyFirstTime", "All Ray Pods are ready for the first time"
        return with_condition(found, "RayClusterProvisioned", "True", *why)
    why = "RayClusterPodsProvisioning", "RayCluster Pods are being provisioned for first time"
    return with_condition(found, "RayClusterProvisioned", "False", *why)


def pod_of(body, role, group):
    """A pod as KubeRay builds it from its group's template."""
    template = deepcopy(group["template"])
    name, metadata = body["metadata"]["name"], template.get("metadata") or {}
    group_name = "headgroup" if role == "head" else group["groupName"]
    middle = "head" if role == "head" else f"{group_name}-worker"
    labels = {
        "app.kubernetes.io/created-by": "kuberay-operator",
        "app.kubernetes.io/name": "kuberay",
        "ray.io/cluster": name,
        "ray.io/group": group_name,
        "ray.io/identifier": f"{name}-{role}",
        "ray.io/is-ray-node": "yes",
        "ray.io/node-type": role,
    }
    origin = body["metadata"].get("labels", {})
    if origin.get("ray.io/originated-from-crd") == "RayService":
        labels["ray.io/serve"] = "true" if role == "worker" else "false"
    labels |= {key: value for key, value in origin.items() if key.startswith("ray.io/originated-from")}
    own = {
        "name": f"{name}-{middle}-{random_suffix()}",
        "labels": (metadata.get("labels") or {}) | labels,
        "annotations": metadata.get("annotations") or {},
        "ownerReferences": [reference(body)],
    }
    spec = template["spec"]
    if has_own_token(body):
        source = {"secretKeyRef": {"name": name, "key": "auth_token"}}
        added = [{"name": "RAY_AUTH_MODE", "value": "token"}, {"name": "RAY_AUTH_TOKEN", "valueFrom": source}]
        spec["containers"][0]["env"] = [*(spec["containers"][0].get("env") or ()), *added]
    if role == "worker":
        wait = {"name": "wait-gcs-ready", "image": spec["containers"][0].get("image", ""), "command": ["/bin/bash"]}
        spec["initContainers"] = [*(spec.get("initContainers") or ()), wait]
    elif body["spec"].get("enableInTreeAutoscaling"):
        image = spec["containers"][0].get("image", "")
        spec["containers"].append({"name": "autoscaler", "image": image, "command": ["/bin/bash", "-lc", "--"]})
    return {"metadata": own, "spec": spec}


def wanted_replicas(group):
    if group.get("suspend"):
        return 0
    least, most = group.get("minReplicas") or 0, group.get("maxReplicas")
    wanted = group["replicas"] if group.get("replicas") is not None else least
    return max(least, min(wanted, wanted if most is None else most))


def has_own_token(body):
    options = body["spec"].get("authOptions") or {}
    return options.get("mode") == "token" and not options.get("secretName")


def label(pod, name):
    return pod["metadata"].get("labels", {}).get(f"ray.io/{name}")


def is_head(pod):
    return label(pod, "node-type") == "head"

"""RayServices at play: a cluster for each, Serve in it, a new one beside it when its configuration changes."""

import re
from copy import deepcopy

from kubernetes_api import podstatus
from kubernetes_api.admission import random_suffix
from kubernetes_api.conditions import condition, is_true
from kubernetes_api.kuberay import status as statuses
from kubernetes_api.kuberay.applications import Serving
from kubernetes_api.kuberay.raycluster import OPERATOR, STATUS, is_head, label
from kubernetes_api.kuberay.services import head_service_of_service, reference, serve_service
from kubernetes_api.kuberay.wish import raycluster, same
from kubernetes_api.store import Key
from kubernetes_api.times import now

TIMEOUT = "ray.io/initializing-timeout"
DELETION_DELAY_S = 60


class RayServices:
    def __init__(self, cluster, events):
        self.cluster, self.events = cluster, events
        self.serving: dict[str, Serving] = {}  # by the name of the RayCluster
        self.turns = 0  # the clock: a second of a timeout, ten seconds of a delay
        self.started: dict[str, int] = {}  # turn when a service or an old cluster was first seen

    def turn(self):
        self.turns += 1
        self.kind = self.cluster.catalogue.named("RayService", "ray.io")
        self.clusters = self.cluster.catalogue.named("RayCluster", "ray.io")
        if self.kind is None or self.clusters is None:
            return
        for _, body in self.cluster.store.of(self.kind.resource):
            if not body["metadata"].get("deletionTimestamp"):
                self.reconcile(body)

    def reconcile(self, body):
        status = deepcopy(body.get("status", {}))
        if self.is_refused(body, status):
            return
        self.clean_up(body, status)
        ready = condition(body, "Ready")
        if ready and ready["reason"] == "InitializingTimeout":
            return
        active, pending = self.ensure_clusters(body, status)
        statuses.take_clusters(status, active, pending)
        target = pending or active
        if target and (target is pending or not self.wants_new(body, active, None)):
            self.serve(body, status, target, "pendingServiceStatus" if target is pending else "activeServiceStatus")
        if self.wants_new(body, active, pending):
            status["pendingServiceStatus"] = {"rayClusterName": f"{body['metadata']['name']}-{random_suffix()}"}
        status["numServeEndpoints"] = self.count_endpoints(body)
        statuses.conclude(status, body, self.timed_out(body, status))
        if is_new_timeout(body, status):
            message = "RayService initializing timeout exceeded"
            self.events.record(body, "RayServiceInitializingTimeout", message, warning=True)
        self.write(body, status)

    def write(self, body, status):
        if status != body.get("status"):
            status["lastUpdateTime"] = now()
            self.cluster.writing.rewrite(self.kind, body, body | {"status": status}, STATUS)

    def is_refused(self, body, status):
        """Whether KubeRay finds the RayService itself wrong."""
        trouble = self.cluster.troubles.named("invalid")
        message = trouble.get("message", "The RayService spec is invalid") if trouble else refusal(body)
        if message is None:
            return False
        name = f"{body['metadata']['namespace']}/{body['metadata']['name']}"
        if not is_refused_already(body, message):
            self.events.record(body, "InvalidRayServiceSpec", f"{name}: {message}", warning=True)
        statuses.refuse(status, body, message)
        self.write(body, status)
        return True

    def find(self, body, name):
        key = Key(*self.clusters.resource, body["metadata"]["namespace"], name)
        found = self.cluster.store.get(key) if name else None
        return found if found and not found["metadata"].get("deletionTimestamp") else None

    def ensure_clusters(self, body, status):
        active = self.find(body, statuses.cluster_name(status, "active"))
        name = statuses.cluster_name(status, "pending")
        pending = self.find(body, name)
        if name and pending is None:
            pending = self.create_cluster(body, name)
        changed = pending or (active if not is_true(body, "UpgradeInProgress") else None)
        if changed and not same(body, changed) and same(body, changed, partly=True):
            self.update_cluster(body, changed, "active" if changed is active else "pending")
        return active, pending

    def create_cluster(self, body, name):
        namespace = body["metadata"]["namespace"]
        self.cluster.writing.create(self.clusters, namespace, raycluster(body, name), OPERATOR)
        self.events.record(body, "CreatedRayCluster", f"Created the RayCluster {namespace}/{name}")
        return self.find(body, name)

    def update_cluster(self, body, live, which):
        name, namespace = live["metadata"]["name"], live["metadata"]["namespace"]
        new = raycluster(body, name)
        new["metadata"] = live["metadata"] | {"annotations": new["metadata"]["annotations"]}
        self.cluster.writing.replace(self.clusters, namespace, name, {**live, **new}, OPERATOR)
        self.events.record(body, "UpdatedRayCluster", f"Updated the {which} RayCluster {namespace}/{name}")

    def clean_up(self, body, status):
        """Deletes the clusters that aren't the active or the pending one, after their delay."""
        kept = {statuses.cluster_name(status, "active"), statuses.cluster_name(status, "pending")}
        delay = body["spec"].get("rayClusterDeletionDelaySeconds", DELETION_DELAY_S) / 10
        for key, one in self.cluster.store.of(self.clusters.resource, body["metadata"]["namespace"]):
            ours = any(owner["uid"] == body["metadata"]["uid"] for owner in one["metadata"].get("ownerReferences", ()))
            if not ours or key.name in kept or one["metadata"].get("deletionTimestamp"):
                continue
            if self.turns - self.started.setdefault(key.name, self.turns) > delay:
                self.cluster.deletion.delete(self.clusters, key)
                self.events.record(body, "DeletedRayCluster", f"Deleted the RayCluster {key.namespace}/{key.name}")

    def wants_new(self, body, active, pending):
        newest = pending or active
        if newest is None:
            return True
        if same(body, newest) or same(body, newest, partly=True):
            return False
        return body["spec"].get("upgradeStrategy", {}).get("type") in (None, "NewCluster")

    def serve(self, body, status, target, where):
        """Serve in one cluster: asks how it is, submits what isn't yet, and moves the Services when all is well.

        In this order, as KubeRay does: in the turn of a submission the status still tells of what was there before.
        """
        if not is_true(target, "HeadPodReady"):
            return
        name = target["metadata"]["name"]
        pods = self.pods_of(target)
        serving = self.serving.setdefault(name, Serving())
        serving.turns += 1
        config = body["spec"].get("serveConfigV2", "")
        head = next(pod["metadata"]["uid"] for pod in pods if podstatus.is_ready(pod) and is_head(pod))
        lost = serving.is_lost(head, target["spec"].get("gcsFaultToleranceOptions"))
        if lost:
            serving.submit("")
        workers_run = all(podstatus.is_running(pod) for pod in pods if not is_head(pod))
        applications = serving.statuses(workers_run, self.cluster.troubles.serving(name, serving.config))
        if serving.config != config or lost:
            serving.submit(config)
            message = f"Updated serve applications to the RayCluster {target['metadata']['namespace']}/{name}"
            self.events.record(body, "UpdatedServeApplications", message)
        status[where]["applicationStatuses"] = applications
        deployed = [one for app in applications.values() for one in app["serveDeploymentStatuses"].values()]
        if any(one["status"] == "HEALTHY" for one in deployed):
            self.cluster.serving.add(name)
            self.label_head(body, pods)
        if applications and all(app["status"] == "RUNNING" for app in applications.values()):
            self.point_services(body, target)
            if where == "pendingServiceStatus":
                status["activeServiceStatus"] = status.pop(where)
                status["pendingServiceStatus"] = {}

    def pods_of(self, target):
        metadata = target["metadata"]
        found = [pod for _, pod in self.cluster.store.of(("", "pods"), metadata["namespace"])]
        return [pod for pod in found if label(pod, "cluster") == metadata["name"]]

    def label_head(self, body, pods):
        wanted = "false" if body["spec"].get("excludeHeadPodFromServeSvc") else "true"
        for pod in pods:
            metadata = pod["metadata"]
            if is_head(pod) and label(pod, "serve") != wanted and "deletionTimestamp" not in metadata:
                key = Key("", "pods", metadata["namespace"], metadata["name"])
                labels = metadata["labels"] | {"ray.io/serve": wanted}
                self.cluster.store.put(key, pod | {"metadata": metadata | {"labels": labels}})
                message = f'Updated the serve label to "{wanted}" for the Head Pod {key.namespace}/{key.name}'
                self.events.record(body, "UpdatedHeadPodServeLabel", message)

    def point_services(self, body, target):
        kind, namespace = self.cluster.catalogue.named("Service"), body["metadata"]["namespace"]
        for service in (head_service_of_service(body, target), serve_service(body, target)):
            name = service["metadata"]["name"]
            live = self.cluster.store.get(self.cluster.writing.key(kind, namespace, name))
            if live is None:
                service["metadata"]["ownerReferences"] = [reference(body)]
                self.cluster.writing.create(kind, namespace, service, OPERATOR)
                self.events.record(body, "CreatedService", f"Created the service {namespace}/{name}")
            elif live["spec"]["selector"] != service["spec"]["selector"]:
                new = live | {"spec": live["spec"] | service["spec"]}
                self.cluster.writing.replace(kind, namespace, name, new, OPERATOR)
                self.events.record(body, "UpdatedService", f"Updated the service {namespace}/{name}")

    def count_endpoints(self, body):
        namespace, name = body["metadata"]["namespace"], f"{body['metadata']['name']}-serve-svc"
        counted = 0
        for _, one in self.cluster.store.of(("discovery.k8s.io", "endpointslices"), namespace):
            if one["metadata"].get("labels", {}).get("kubernetes.io/service-name") == name:
                counted += sum(endpoint["conditions"]["ready"] for endpoint in one["endpoints"])
        return counted

    def timed_out(self, body, status):
        """The message where the RayService has been initializing for too long."""
        limit = body["metadata"].get("annotations", {}).get(TIMEOUT, "")
        trouble = self.cluster.troubles.named("initializing_timeout")
        begun = self.started.setdefault(body["metadata"]["uid"], self.turns)
        if trouble or (limit and self.turns - begun > seconds_of(limit)):
            shown = limit or "10m0s"
            return (
                f"RayService failed to become ready within the configured timeout of {shown}. "
                f"Time spent initializing: {shown}"
            )
        return None


def refusal(body):
    name = body["metadata"]["name"]
    if len(name) > 47:
        return "The RayService metadata is invalid: RayService name should be no more than 47 characters"
    limit = body["metadata"].get("annotations", {}).get(TIMEOUT, "")
    if limit and seconds_of(limit) <= 0:
        return f"The RayService metadata is invalid: annotation {TIMEOUT} has invalid format: {limit}"
    return None


def is_refused_already(body, message):
    ready = condition(body, "Ready")
    return ready is not None and ready.get("message") == message


def is_new_timeout(body, status):
    before, after = condition(body, "Ready"), condition({"status": status}, "Ready")
    return after["reason"] == "InitializingTimeout" and (before is None or before["reason"] != after["reason"])


def seconds_of(duration):
    """Of a Go duration or a whole number of seconds; 0 where it is neither."""
    if duration.isdigit():
        return int(duration)
    parts = re.findall(r"(\d+(?:\.\d+)?)(h|m|s)", duration)
    if "".join(number + unit for number, unit in parts) != duration:
        return 0
    return sum(float(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)

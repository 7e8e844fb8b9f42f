"""Kubelets and the scheduler at play: takes each pod a step a turn from Pending to Ready, or into its trouble."""

from dataclasses import dataclass, field

from kubernetes_api import podstatus
from kubernetes_api.times import now

NEW, SCHEDULED, INITIALIZING, STARTED = "new", "scheduled", "initializing", "started"
NODECLAIM = {
    "apiVersion": "karpenter.sh/v1",
    "kind": "NodeClaim",
    "metadata": {
        "name": "g5-gpu-karpenter-hmqzq",
        "uid": "3e1b5cb0-0000-4000-8000-000000000000",
        "resourceVersion": "1",
    },
}
QUOTA = (
    "creating instance, insufficient capacity, with fleet error(s), VcpuLimitExceeded: You have requested more vCPU "
    "capacity than your current vCPU limit of 64 allows for the instance bucket that the specified instance type "
    "belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit."
)


@dataclass
class Life:
    """One pod's life."""

    stage: str = NEW
    initialized: int = 0  # containers that have run
    turns: int = 0  # in this stage
    leaving: int = 0
    restarts: int = 0
    node: str = ""
    address: str = ""
    times: dict[str, str] = field(default_factory=dict)

    def enter(self, stage):
        self.stage, self.turns = stage, 0
        self.times[stage] = now()


class Kubelets:
    def __init__(self, cluster, events):
        self.cluster, self.events = cluster, events
        self.lives: dict[str, Life] = {}

    def turn(self):
        for key, pod in self.cluster.store.of(("", "pods")):
            life = self.lives.setdefault(pod["metadata"]["uid"], Life())
            if pod["metadata"].get("deletionTimestamp"):
                self.leave(key, pod, life)
            else:
                self.advance(key, pod, life)

    def leave(self, key, pod, life):
        life.leaving += 1
        if life.leaving == 1 and life.stage == STARTED:
            for container in pod["spec"]["containers"]:
                self.say(pod, "Killing", f"Stopping container {container['name']}")
        if life.leaving > 2 and not pod["metadata"].get("finalizers"):
            self.cluster.deletion.drop(key)

    def advance(self, key, pod, life):
        trouble = self.cluster.troubles.of_pod(pod) or {"trouble": ""}
        life.turns += 1
        {NEW: self.schedule, SCHEDULED: self.pull, INITIALIZING: self.initialize, STARTED: self.run}[life.stage](
            pod, life, trouble
        )
        status = podstatus.status_of(pod, life, trouble, self.is_ready(pod, life, trouble))
        spec = pod["spec"] | ({"nodeName": life.node} if life.node else {})
        if status != pod.get("status") or spec != pod["spec"]:
            self.cluster.store.put(key, pod | {"spec": spec, "status": status})

    def schedule(self, pod, life, trouble):
        name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        if trouble["trouble"] in ("unschedulable", "quota"):
            self.leave_unscheduled(pod, life, trouble)
            return
        nodes = self.cluster.store.of(("", "nodes"))
        fitting = [key.name for key, node in nodes if has_gpu(node) == wants_gpu(pod)] or [key.name for key, _ in nodes]
        life.node = fitting[sum(map(ord, pod["metadata"]["uid"])) % len(fitting)]
        life.enter(SCHEDULED)
        self.say(pod, "Scheduled", f"Successfully assigned {name} to {life.node}", source="default-scheduler")

    def leave_unscheduled(self, pod, life, trouble):
        if life.turns % 20 == 1:
            message = podstatus.unschedulable(pod, trouble)
            self.say(pod, "FailedScheduling", message, warning=True, source="default-scheduler")
        if life.turns == 1 and trouble["trouble"] == "quota":
            message = f"Pod should schedule on: nodeclaim/{NODECLAIM['metadata']['name']}"
            self.say(pod, "Nominated", message, source="karpenter")
            said = trouble.get("message", QUOTA)[:300] + "..."  # Karpenter cuts what it says at 300 characters
            message = f"NodeClaim {NODECLAIM['metadata']['name']} event: {said}"
            self.events.record(NODECLAIM, "InsufficientCapacityError", message, warning=True, source="karpenter")

    def pull(self, pod, life, trouble):
        container = podstatus.troubled_container(pod, trouble)
        if trouble["trouble"] == "image_pull":
            self.fail_to_pull(pod, container["image"], life)
            return
        if life.turns == 1:
            self.say(pod, "Pulling", f'Pulling image "{container["image"]}"')
            return
        self.say(pod, "Pulled", f'Successfully pulled image "{container["image"]}" in 41.2s (41.2s including waiting)')
        life.enter(INITIALIZING)

    def fail_to_pull(self, pod, image, life):
        if life.turns % 10 == 1:
            self.say(pod, "Pulling", f'Pulling image "{image}"')
            self.say(pod, "Failed", f'Failed to pull image "{image}": {podstatus.pull_error(image)}', warning=True)
            self.say(pod, "Failed", "Error: ErrImagePull", warning=True)
        if life.turns % 10 == 3:
            self.say(pod, "BackOff", f'Back-off pulling image "{image}"')
            self.say(pod, "Failed", "Error: ImagePullBackOff", warning=True)

    def initialize(self, pod, life, trouble):
        waiting = pod["spec"].get("initContainers") or ()
        if trouble["trouble"] == "init_failed" and waiting:
            self.restart(pod, life, podstatus.troubled_init_container(pod, trouble)["name"])
            return
        if life.initialized < len(waiting):
            if waiting[life.initialized]["name"] != "wait-gcs-ready" or self.head_is_ready(pod):
                life.initialized += 1
            return
        life.enter(STARTED)
        for container in pod["spec"]["containers"]:
            self.say(pod, "Created", f"Created container: {container['name']}")
            self.say(pod, "Started", f"Started container {container['name']}")

    def run(self, pod, life, trouble):
        if trouble["trouble"] in ("crash_loop", "oom_killed"):
            self.restart(pod, life, podstatus.troubled_container(pod, trouble)["name"])
        elif trouble["trouble"] == "not_ready" and life.turns % 10 == 1:
            message = trouble.get(
                "message", "Readiness probe failed: wget: can't connect to remote host: Connection refused"
            )
            self.say(pod, "Unhealthy", message, warning=True)

    def restart(self, pod, life, container):
        if life.turns % 10 == 1:
            life.restarts += 1
            metadata = pod["metadata"]
            where = f"{metadata['name']}_{metadata['namespace']}({metadata['uid']})"
            self.say(pod, "BackOff", f"Back-off restarting failed container {container} in pod {where}", warning=True)

    def is_ready(self, pod, life, trouble):
        if life.stage != STARTED or life.turns < 2 or trouble["trouble"] in ("crash_loop", "oom_killed", "not_ready"):
            return False
        labels = pod["metadata"].get("labels", {})
        # a worker's readiness probe asks Serve's proxy, which runs where there are replicas
        waits_for_serve = labels.get("ray.io/serve") and labels.get("ray.io/node-type") == "worker"
        return not waits_for_serve or labels["ray.io/cluster"] in self.cluster.serving

    def head_is_ready(self, pod):
        name = pod["metadata"].get("labels", {}).get("ray.io/cluster")
        for _, one in self.cluster.store.of(("", "pods"), pod["metadata"]["namespace"]):
            labels = one["metadata"].get("labels", {})
            if (labels.get("ray.io/cluster"), labels.get("ray.io/node-type")) == (name, "head"):
                return podstatus.is_ready(one)
        return False

    def say(self, pod, reason, message, warning=False, source="kubelet"):
        self.events.record(pod, reason, message, warning, source)


def wants_gpu(pod):
    return any("nvidia.com/gpu" in podstatus.requests(one) for one in pod["spec"]["containers"])


def has_gpu(node):
    return "nvidia.com/gpu" in node["status"]["capacity"]

"""The Ray cluster of a service: head, worker groups, autoscaler, authentication and GCS fault tolerance."""

from serve_app.tools.deploy import ports
from serve_app.tools.deploy.api.objects import Manifest
from serve_app.tools.deploy.manifests.pods import CONFINED, WRITABLE, pod, ray_container
from serve_app.tools.deploy.manifests.storage import REDIS
from serve_app.tools.deploy.scenarios.scenario import HeadGroup, Scenario, WorkerGroup
from serve_app.tools.deploy.scenarios.serving import CAPACITY, ROLE_LABEL

AUTOSCALER = {"cpu": "500m", "memory": "1Gi"}


def cluster(scenario: Scenario) -> Manifest:
    """`rayClusterConfig` of the RayService."""
    spec: Manifest = {
        "rayVersion": scenario.images.ray,
        # Ray's ports require a token, which KubeRay creates and mounts
        "authOptions": {"mode": "token"},
        "headGroupSpec": head(scenario, scenario.head),
        "workerGroupSpecs": [workers(scenario, role, group) for role, group in scenario.workers.items()],
    }
    if scenario.autoscales:
        spec["enableInTreeAutoscaling"] = True
        spec["autoscalerOptions"] = autoscaler()
    if scenario.head_store:
        password = scenario.head_store.password
        spec["gcsFaultToleranceOptions"] = {
            "redisAddress": scenario.head_store.address or f"{scenario.name}-{REDIS}:{ports.REDIS}",
            "redisPassword": {"valueFrom": {"secretKeyRef": {"name": password.secret, "key": password.key}}},
        }
    return spec


def head(scenario: Scenario, group: HeadGroup) -> Manifest:
    """Ray's own services, and the routers if there is no group for them."""
    edge = {ROLE_LABEL: "routers"} if scenario.workers and "routers" not in scenario.workers else {}
    return {
        "rayStartParams": start() | {"dashboard-host": "0.0.0.0"},
        "resources": resources(group, "head", working=group.works),
        "template": pod(scenario, group, "head", ray_container(scenario, group, "head")),
    } | ({"labels": edge} if edge else {})


def workers(scenario: Scenario, role: str, group: WorkerGroup) -> Manifest:
    spec: Manifest = {
        "groupName": role,
        "minReplicas": group.min,
        "maxReplicas": group.max,
        "replicas": group.min,
        "idleTimeoutSeconds": group.idle_timeout_s,
        "labels": {ROLE_LABEL: role},
        "rayStartParams": start(),
        "resources": resources(group, role, working=True),
        "template": pod(scenario, group, role, ray_container(scenario, group, role)),
    }
    if not scenario.autoscales:
        del spec["idleTimeoutSeconds"]
    spec["template"]["spec"]["topologySpreadConstraints"] = spread(scenario, role)
    return spec


def start() -> dict[str, str]:
    """Arguments of `ray start`, all as text."""
    return {name: str(port) for name, port in ports.START.items()}


def resources(group: HeadGroup | WorkerGroup, role: str, *, working: bool) -> dict[str, str]:
    """What Ray may place there; a custom resource per role keeps other replicas away."""
    found = {"CPU": str(int(group.cpu)) if working else "0"}
    if group.gpus:
        found["GPU"] = str(group.gpus)
    return found | ({role: str(CAPACITY)} if role in ("vision", "llm") else {})


def spread(scenario: Scenario, role: str) -> list[Manifest]:
    """Over zones and nodes; with a head store (high availability) no two pods of a group share a node."""
    selector = {"matchLabels": {"app.kubernetes.io/instance": scenario.name, "app.kubernetes.io/component": role}}
    strictly = "DoNotSchedule" if scenario.head_store else "ScheduleAnyway"
    wanted = {"topology.kubernetes.io/zone": "ScheduleAnyway", "kubernetes.io/hostname": strictly}
    return [
        {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": otherwise, "labelSelector": selector}
        for key, otherwise in wanted.items()
    ]


def autoscaler() -> Manifest:
    return {
        "version": "v2",
        "upscalingMode": "Default",
        "idleTimeoutSeconds": 300,  # for groups without their own value
        "resources": {"requests": AUTOSCALER, "limits": {"memory": AUTOSCALER["memory"]}},
        "securityContext": CONFINED,
        "env": [{"name": name, "value": value} for name, value in sorted(WRITABLE.items())],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }

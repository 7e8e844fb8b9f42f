"""Pods: the Ray container, its security context and volumes, and the sidecar that copies the model repository."""

import math

from serve_app.settings import PROJECT_ROOT, read_environment_file
from serve_app.tools.deploy import ports
from serve_app.tools.deploy.api.objects import Manifest
from serve_app.tools.deploy.api.target import labels_of
from serve_app.tools.deploy.scenarios.scenario import Group, ModelStore, Scenario, SecretKey
from serve_app.tools.deploy.scenarios.serving import KEYS, MODELS, PLANS

NOT_ROOT = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 100,
    "fsGroup": 100,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONFINED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
# Karpenter moves pods to save nodes; loading a model again takes minutes.
UNMOVED = {"karpenter.sh/do-not-disrupt": "true"}
# Libraries write below these; the home folder is read-only.
WRITABLE = {
    "HOME": "/tmp",
    "XDG_CACHE_HOME": "/tmp/cache",
    "HF_HOME": "/tmp/cache/huggingface",
    "VLLM_CACHE_ROOT": "/tmp/cache/vllm",
    "TORCHINDUCTOR_CACHE_DIR": "/tmp/cache/inductor",
    "TRITON_CACHE_DIR": "/tmp/cache/triton",
    "MPLCONFIGDIR": "/tmp/cache/matplotlib",
    "YOLO_CONFIG_DIR": "/tmp/cache",
}
# A load balancer takes this long to notice that a pod stops.
DRAINING_S = 30
IDLE_HEAD_S = 10
BROWSERS = "http://localhost:3000"  # Grafana as kubectl forwards it to who looks at Ray's dashboard
SPOT_DRAIN_S, SPOT_GRACE_S = 90, 110  # within the two minutes between AWS's notice and the machine's end
SIDECAR = {"cpu": "100m", "memory": "256Mi"}
LEAVING = """\
timeout 10 ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "the pod stops" \
--deadline-remaining-seconds {seconds} || true
for second in $(seq {seconds}); do
  if [ $second -gt {least} ]; then pgrep -f '^ray::ServeReplica' > /dev/null || break; fi
{unless_the_head_is_gone}  sleep 1
done
ray stop
"""
# The whole service is deleted, and nothing is left to move to: without its head a worker serves nobody.
HEAD_IS_GONE = """\
  gone() {{ ! timeout 2 bash -c "exec 3<>/dev/tcp/$FQ_RAY_IP/{gcs}" 2> /dev/null; }}
  gone && sleep 3 && gone && break
"""


def pod(scenario: Scenario, group: Group, role: str, container: Manifest) -> Manifest:
    """A pod template, to which KubeRay adds probes, `ray start`, /dev/shm and its own labels."""
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "serviceAccountName": scenario.name,
        "securityContext": NOT_ROOT,
        "terminationGracePeriodSeconds": grace_s(scenario, role),
        "enableServiceLinks": False,
        "containers": [container],
        "volumes": volumes(scenario, role),
    }
    if scenario.models and reads_models(scenario, role):
        spec["initContainers"] = [models_sidecar(scenario, scenario.models, group)]
    spec |= machine(group, scenario.is_spot(role))
    if role == "head" and scenario.autoscales:
        # its autoscaler calls the Kubernetes API
        spec |= {"automountServiceAccountToken": True, "serviceAccountName": f"{scenario.name}-head"}
    metadata = {
        "labels": pod_labels(scenario) | {"app.kubernetes.io/component": role},
        "annotations": {} if scenario.is_spot(role) else UNMOVED,  # a spot machine must be left in time
    }
    return {"metadata": metadata, "spec": spec}


def grace_s(scenario: Scenario, role: str) -> int:
    """A head without replicas has nothing to finish, and its autoscaler doesn't react to SIGTERM."""
    if role == "head" and not scenario.head.works:
        return IDLE_HEAD_S
    return min(scenario.drain_s + 60, SPOT_GRACE_S) if scenario.is_spot(role) else scenario.drain_s + 60


def reads_models(scenario: Scenario, role: str) -> bool:
    return role == "vision" or (role == "head" and scenario.head.works and "vision" not in scenario.workers)


def labels(scenario: Scenario) -> dict[str, str]:
    return labels_of(scenario.name)


def pod_labels(scenario: Scenario) -> dict[str, str]:
    """Without app.kubernetes.io/name, which KubeRay's head Service selects."""
    return {key: value for key, value in labels(scenario).items() if key != "app.kubernetes.io/name"}


def has_routers(scenario: Scenario, role: str) -> bool:
    return role == "routers" or (role == "head" and "routers" not in scenario.workers)


def ray_container(scenario: Scenario, group: Group, role: str) -> Manifest:
    amounts = {"memory": group.memory, "ephemeral-storage": group.disk}
    gpus = {"nvidia.com/gpu": str(group.gpus)} if group.gpus else {}
    container: Manifest = {
        "name": f"ray-{'head' if role == 'head' else 'worker'}",
        "image": scenario.images.name(group.image),
        "imagePullPolicy": scenario.images.pull_policy,
        "env": environment(scenario, group, role),
        "ports": container_ports(role),
        # no CPU limit: a throttled raylet misses its heartbeats
        "resources": {"requests": {"cpu": cores(group.cpu)} | amounts | gpus, "limits": amounts | gpus},
        "securityContext": CONFINED,
        "volumeMounts": mounts(scenario, role),
    }
    if role != "head":
        container["lifecycle"] = {"preStop": {"exec": {"command": ["bash", "-lc", leaving(scenario, role)]}}}
    return container


def leaving(scenario: Scenario, role: str) -> str:
    """Drains the Ray node, waits until Serve has moved its replicas and load balancers notice, then stops Ray.

    Where the head's state is kept, workers serve on while a killed head comes back.
    """
    head = "" if scenario.head_store else HEAD_IS_GONE.format(gcs=ports.GCS)
    drain_s = min(scenario.drain_s, SPOT_DRAIN_S) if scenario.is_spot(role) else scenario.drain_s
    return LEAVING.format(seconds=drain_s, least=min(DRAINING_S, drain_s), unless_the_head_is_gone=head)


def environment(scenario: Scenario, group: Group, role: str) -> list[Manifest]:
    values = read_environment_file(PROJECT_ROOT / "configs" / "ray.env")
    values |= {
        # images may have different patch versions of Python
        "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL": "minor",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAINING_S),
        **WRITABLE,
    }
    if role == "head":
        prometheus = f"http://kube-prometheus-stack-prometheus.{scenario.monitoring_namespace}.svc:9090"
        grafana = f"http://kube-prometheus-stack-grafana.{scenario.monitoring_namespace}.svc:80"
        values |= {"RAY_PROMETHEUS_HOST": prometheus, "RAY_GRAFANA_HOST": grafana, "RAY_GRAFANA_IFRAME_HOST": BROWSERS}
    values |= scenario.environment
    variables: list[Manifest] = [{"name": name, "value": value} for name, value in sorted(values.items())]
    if scenario.hub_token and (role == "llm" or (role == "head" and scenario.head.works)):
        reference = {"name": scenario.hub_token.secret, "key": scenario.hub_token.key}
        variables.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}})
    return variables


def container_ports(role: str) -> list[Manifest]:
    served = {"serve": ports.HTTP, "serve-grpc": ports.GRPC, "metrics": ports.METRICS}
    if role == "head":
        served |= {"gcs-server": ports.GCS, "dashboard": ports.DASHBOARD, "client": ports.CLIENT}
        served |= {"as-metrics": ports.AUTOSCALER_METRICS, "dash-metrics": ports.DASHBOARD_METRICS}
    return [{"name": name, "containerPort": port} for name, port in served.items()]


def volumes(scenario: Scenario, role: str) -> list[Manifest]:
    found: list[Manifest] = [{"name": "tmp", "emptyDir": {}}]
    if scenario.models and reads_models(scenario, role):
        found.append({"name": "models", "emptyDir": {"sizeLimit": scenario.models.room}})
        plans: Manifest = {"emptyDir": {}}
        if scenario.plans:
            plans = {"persistentVolumeClaim": {"claimName": scenario.plans.claim}}
        found.append({"name": "plans"} | plans)
    if (keys := mounted_keys(scenario)) and has_routers(scenario, role):
        sources = [{"secret": {"name": one.secret, "items": [{"key": one.key, "path": one.key}]}} for one in keys]
        found.append({"name": "keys", "projected": {"defaultMode": 0o440, "sources": sources}})
    return found


def mounted_keys(scenario: Scenario) -> list[SecretKey]:
    """A folder, so that the kubelet renews the files when their Secrets change."""
    return [key for key in (scenario.keys, scenario.admin_key) if key]


def mounts(scenario: Scenario, role: str) -> list[Manifest]:
    found: list[Manifest] = [{"name": "tmp", "mountPath": "/tmp"}]
    if scenario.models and reads_models(scenario, role):
        found.append({"name": "models", "mountPath": str(MODELS.parent), "readOnly": True})
        found.append({"name": "plans", "mountPath": str(PLANS)})
    if mounted_keys(scenario) and has_routers(scenario, role):
        found.append({"name": "keys", "mountPath": str(KEYS), "readOnly": True})
    return found


def models_sidecar(scenario: Scenario, store: ModelStore, group: Group) -> Manifest:
    """A sidecar that pulls the model repository before Ray starts, then follows it."""
    folder = str(MODELS.parent)
    return {
        "name": "models",
        "image": scenario.images.name(group.image),
        "imagePullPolicy": scenario.images.pull_policy,
        "restartPolicy": "Always",
        "command": ["python", "scripts/models", "pull", store.url, folder, "--follow", "--every", str(store.poll_s)],
        "env": [{"name": name, "value": value} for name, value in sorted(WRITABLE.items())],
        # Ray starts after the first complete pull
        "startupProbe": {
            "exec": {"command": ["test", "-e", str(MODELS)]},
            "periodSeconds": 2,
            "failureThreshold": math.ceil(scenario.initializing_timeout_s / 2),
        },
        "resources": {"requests": SIDECAR, "limits": {"memory": SIDECAR["memory"]}},
        "securityContext": CONFINED,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "models", "mountPath": folder}],
    }


def machine(group: Group, spot: bool = False) -> Manifest:
    """Node affinity for its pools, the toleration of GPU nodes if it needs GPUs, and its priority."""
    wanted: list[Manifest] = []
    if group.pools:
        wanted.append({"key": "serve-app/pool", "operator": "In", "values": list(group.pools)})
    if group.pools or spot:
        capacity = "In" if spot else "NotIn"
        wanted.append({"key": "karpenter.sh/capacity-type", "operator": capacity, "values": ["spot"]})
    if group.gpus and group.pools:
        # exactly this size: Karpenter would put two pending pods on one larger, more expensive node
        wanted.append({"key": "karpenter.k8s.aws/instance-gpu-count", "operator": "In", "values": [str(group.gpus)]})
    found: Manifest = {}
    if wanted:
        terms = {"nodeSelectorTerms": [{"matchExpressions": wanted}]}
        found["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    if group.gpus:
        found["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    if group.priority_class:
        found["priorityClassName"] = group.priority_class
    return found


def cores(cpu: float) -> str:
    return f"{cpu:g}" if cpu == int(cpu) else f"{int(cpu * 1000)}m"

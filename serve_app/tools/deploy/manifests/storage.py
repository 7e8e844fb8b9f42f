"""Storage: Redis for the head's state, and the volume of TensorRT plans with the Job that builds them."""

import hashlib
import json
from pathlib import PurePosixPath

from serve_app.tools.deploy import ports
from serve_app.tools.deploy.api.objects import Manifest
from serve_app.tools.deploy.manifests.pods import (
    CONFINED,
    NOT_ROOT,
    UNMOVED,
    WRITABLE,
    labels,
    machine,
    models_sidecar,
    mounts,
    volumes,
)
from serve_app.tools.deploy.scenarios.scenario import HeadStore, PlanStore, Scenario
from serve_app.tools.deploy.scenarios.serving import serve_config_text

REDIS = "redis"
CONFIG = "/etc/serve_app/config/serve.yaml"


def redis(scenario: Scenario, store: HeadStore) -> list[Manifest]:
    """One Redis with an append-only file; for more than one zone set head_store.address to an ElastiCache."""
    mine = labels(scenario) | {"app.kubernetes.io/component": REDIS}
    selector = {key: mine[key] for key in ("app.kubernetes.io/instance", "app.kubernetes.io/component")}
    metadata = {"name": f"{scenario.name}-{REDIS}", "namespace": scenario.namespace, "labels": mine}
    reference = {"name": store.password.secret, "key": store.password.key}
    ask = ["sh", "-c", 'REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli ping | grep -q PONG']
    container = {
        "name": REDIS,
        "image": store.image,
        "command": ["sh", "-c", 'exec redis-server --dir /data --appendonly yes --requirepass "$REDIS_PASSWORD"'],
        "env": [{"name": "REDIS_PASSWORD", "valueFrom": {"secretKeyRef": reference}}],
        "ports": [{"name": REDIS, "containerPort": ports.REDIS}],
        "readinessProbe": {"exec": {"command": ask}, "periodSeconds": 5},
        "livenessProbe": {"exec": {"command": ask}, "periodSeconds": 10, "failureThreshold": 6},
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": CONFINED,
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}
    spec = {
        "serviceName": metadata["name"],
        "replicas": 1,
        "selector": {"matchLabels": selector},
        "template": {
            "metadata": {"labels": mine, "annotations": UNMOVED},
            "spec": {"automountServiceAccountToken": False, "securityContext": NOT_ROOT, "containers": [container]}
            | machine(scenario.head),
        },
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
    }
    service = {"selector": selector, "clusterIP": "None", "ports": [{"name": REDIS, "port": ports.REDIS}]}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec},
    ]


def plans(scenario: Scenario, store: PlanStore) -> list[Manifest]:
    """The volume, and a Job that builds every plan on the same kind of GPU as the vision pods."""
    group = scenario.workers["vision"]
    mine = {"namespace": scenario.namespace, "labels": labels(scenario) | {"app.kubernetes.io/component": "plans"}}
    claim = {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": store.storage_class,
        "resources": {"requests": {"storage": store.size}},
    }
    memory = {"memory": group.memory, "nvidia.com/gpu": "1"}
    builder = {
        "name": "plans",
        "image": scenario.images.name(group.image),
        "imagePullPolicy": scenario.images.pull_policy,
        "command": ["python", "scripts/build_models", "--plans-only", "--config", CONFIG],
        "env": [{"name": name, "value": value} for name, value in sorted(WRITABLE.items())],
        "resources": {"requests": {"cpu": "2"} | memory, "limits": memory},
        "securityContext": CONFINED,
        "volumeMounts": [
            *mounts(scenario, "vision"),
            {"name": "config", "mountPath": str(PurePosixPath(CONFIG).parent)},
        ],
    }
    name = f"{scenario.name}-plans"
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "serviceAccountName": scenario.name,
        "securityContext": NOT_ROOT,
        "containers": [builder],
        "volumes": [*volumes(scenario, "vision"), {"name": "config", "configMap": {"name": name}}],
    } | machine(group)
    if scenario.models:
        spec["initContainers"] = [models_sidecar(scenario, scenario.models, group)]
    config = serve_config_text(scenario)
    # Jobs are immutable: a new image or configuration needs a new Job
    digest = hashlib.sha256(json.dumps([spec, config]).encode()).hexdigest()[:8]
    job = {
        "backoffLimit": 2,
        "ttlSecondsAfterFinished": 86400,
        "template": {"metadata": {"labels": mine["labels"]}, "spec": spec},
    }
    return [
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": store.claim} | mine, "spec": claim},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name} | mine,
            "data": {"serve.yaml": config},
        },
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": f"{name}-{digest}"} | mine,
            "spec": job,
        },
    ]

"""The RayCluster that a RayService wishes for, and whether one that is there is that."""

import hashlib
import json
from copy import deepcopy

from kubernetes_api.kuberay.services import origin, reference

HASH = "ray.io/hash-without-replicas-and-workers-to-delete"
GROUPS = "ray.io/num-worker-groups"
VERSION = "ray.io/kuberay-version"


def raycluster(body, name):
    metadata = body["metadata"]
    annotations = metadata.get("annotations", {}) | {
        HASH: hashed(body["spec"]["rayClusterConfig"]),
        GROUPS: str(len(body["spec"]["rayClusterConfig"].get("workerGroupSpecs") or ())),
        VERSION: "v1.7.0",
    }
    own = {"name": name, "namespace": metadata["namespace"], "annotations": annotations}
    own["labels"] = metadata.get("labels", {}) | origin(body)
    own["ownerReferences"] = [reference(body)]
    return {"metadata": own, "spec": deepcopy(body["spec"]["rayClusterConfig"])}


def hashed(spec, groups=None):
    """Of what makes a new cluster when it changes: all but how many workers there are."""
    kept = (spec.get("workerGroupSpecs") or [])[:groups]
    scaled = ("replicas", "minReplicas", "maxReplicas")
    spec = spec | {"workerGroupSpecs": [{k: v for k, v in group.items() if k not in scaled} for group in kept]}
    return hashlib.sha1(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def same(body, live, partly=False):
    """Whether the cluster is what the RayService wishes; `partly`: but for groups that were added at the end."""
    annotations = live["metadata"]["annotations"]
    groups = int(annotations[GROUPS]) if partly else None
    if partly and len(body["spec"]["rayClusterConfig"].get("workerGroupSpecs") or ()) < groups:
        return False
    return annotations[HASH] == hashed(body["spec"]["rayClusterConfig"], groups)

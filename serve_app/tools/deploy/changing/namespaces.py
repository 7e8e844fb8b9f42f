"""Whose a namespace is: one that `up` made goes with the service, unless somebody else has something in it."""

import copy

from serve_app.errors import ForbiddenError
from serve_app.tools.deploy.api.objects import Manifest, Objects
from serve_app.tools.deploy.api.target import FIELD_MANAGER, INSTANCE_LABEL, MANAGER_LABEL, Target

MADE_BY = "serve-app/made-by"  # an annotation, because `up` puts its labels on a namespace of other people too
CLAIM = "PersistentVolumeClaim"
HELD = (
    ("ray.io/v1", "RayService"),
    ("ray.io/v1", "RayCluster"),
    ("ray.io/v1", "RayJob"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("batch/v1", "CronJob"),
    ("batch/v1", "Job"),
    ("v1", "Pod"),
    ("v1", CLAIM),
    ("v1", "Service"),
    ("v1", "Secret"),
    ("v1", "ConfigMap"),
)
# which Kubernetes puts into every namespace
ROOT_CERTIFICATE = "kube-root-ca.crt"
ACCOUNT_TOKEN = "kubernetes.io/service-account-token"


def with_maker(namespace: Manifest, live: Manifest | None) -> Manifest:
    """Marked where it isn't there yet; the mark stays in later applies, and none comes to one of other people."""
    if live is not None and not _is_marked(live):
        return namespace
    marked = copy.deepcopy(namespace)
    marked["metadata"].setdefault("annotations", {})[MADE_BY] = FIELD_MANAGER
    return marked


def reason_to_keep(objects: Objects, target: Target, namespace: Manifest) -> str:
    """Empty where it may go."""
    live = objects.live(namespace)
    if live is None:
        return ""
    if not _is_marked(live):
        return "it wasn't made by scripts/deploy"
    others = _others(objects, target)
    return f"it also holds {', '.join(others[:5])}{', …' if len(others) > 5 else ''}" if others else ""


def _is_marked(namespace: Manifest) -> bool:
    return (namespace["metadata"].get("annotations") or {}).get(MADE_BY) == FIELD_MANAGER


def _others(objects: Objects, target: Target) -> list[str]:
    """What runs, what keeps data, and what somebody would miss."""
    found = []
    for version, kind in HELD:
        try:
            items = objects.list(version, kind, target.namespace)
        except ForbiddenError:
            found.append(f"perhaps a {kind}: you may not list them")
            continue
        found += [f"{kind}/{one['metadata']['name']}" for one in items if not _belongs(one, kind, target)]
    return found


def _belongs(one: Manifest, kind: str, target: Target) -> bool:
    """To the service, to KubeRay's part of it, or to every namespace; never by its name, as the keys' may be alike."""
    metadata = one["metadata"]
    labels = metadata.get("labels") or {}
    manager = labels.get(MANAGER_LABEL, FIELD_MANAGER if kind == CLAIM else "")  # a StatefulSet's claims have none
    references = metadata.get("ownerReferences") or []
    owners = [owner["name"] for owner in references if owner["apiVersion"].startswith("ray.io/")]
    return (
        (labels.get(INSTANCE_LABEL) == target.name and manager == FIELD_MANAGER)
        or target.owns_cluster(labels.get("ray.io/cluster", ""))
        or any(owner == target.name or target.owns_cluster(owner) for owner in owners)
        or (kind == "ConfigMap" and metadata["name"] == ROOT_CERTIFICATE)
        or one.get("type") == ACCOUNT_TOKEN
    )

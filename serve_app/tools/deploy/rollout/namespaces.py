"""Which namespaces `down` may delete: those that `up` created and that contain nothing else."""

import copy

from serve_app.errors import ForbiddenError
from serve_app.tools.deploy.api.objects import Manifest, Objects
from serve_app.tools.deploy.api.target import FIELD_MANAGER, INSTANCE_LABEL, MANAGER_LABEL, Target

CREATED_BY = "serve-app/created-by"  # an annotation: `up` also adds its labels to namespaces that exist already
CLAIM = "PersistentVolumeClaim"
CHECKED_KINDS = (
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
# Kubernetes creates these in every namespace.
ROOT_CERTIFICATE = "kube-root-ca.crt"
ACCOUNT_TOKEN = "kubernetes.io/service-account-token"


def with_owner(namespace: Manifest, live: Manifest | None) -> Manifest:
    """Annotated if it doesn't exist yet; later applies keep the annotation, and never add it."""
    if live is not None and not _is_marked(live):
        return namespace
    marked = copy.deepcopy(namespace)
    marked["metadata"].setdefault("annotations", {})[CREATED_BY] = FIELD_MANAGER
    return marked


def reason_to_keep(objects: Objects, target: Target, namespace: Manifest) -> str:
    """Empty if it may be deleted."""
    live = objects.live(namespace)
    if live is None:
        return ""
    if not _is_marked(live):
        return "it wasn't created by scripts/deploy"
    others = _others(objects, target)
    return f"it also contains {', '.join(others[:5])}{', …' if len(others) > 5 else ''}" if others else ""


def _is_marked(namespace: Manifest) -> bool:
    return (namespace["metadata"].get("annotations") or {}).get(CREATED_BY) == FIELD_MANAGER


def _others(objects: Objects, target: Target) -> list[str]:
    found = []
    for version, kind in CHECKED_KINDS:
        try:
            items = objects.list(version, kind, target.namespace)
        except ForbiddenError:
            found.append(f"possibly a {kind}: you may not list them")
            continue
        found += [f"{kind}/{one['metadata']['name']}" for one in items if not _belongs(one, kind, target)]
    return found


def _belongs(one: Manifest, kind: str, target: Target) -> bool:
    """To the service, to its RayClusters, or to every namespace. Names don't count."""
    metadata = one["metadata"]
    labels = metadata.get("labels") or {}
    # claims of a StatefulSet have no manager label
    manager = labels.get(MANAGER_LABEL, FIELD_MANAGER if kind == CLAIM else "")
    references = metadata.get("ownerReferences") or []
    owners = [owner["name"] for owner in references if owner["apiVersion"].startswith("ray.io/")]
    return (
        (labels.get(INSTANCE_LABEL) == target.name and manager == FIELD_MANAGER)
        or target.owns_cluster(labels.get("ray.io/cluster", ""))
        or any(owner == target.name or target.owns_cluster(owner) for owner in owners)
        or (kind == "ConfigMap" and metadata["name"] == ROOT_CERTIFICATE)
        or one.get("type") == ACCOUNT_TOKEN
    )

"""The kinds that the server knows: the built-in ones, and those of the CustomResourceDefinitions in it."""

from dataclasses import dataclass, field
from typing import Any

EVERYTHING = ("create", "delete", "get", "list", "patch")


@dataclass(frozen=True)
class Kind:
    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = EVERYTHING
    counted: bool = False  # whether metadata.generation counts changes of what is wished for
    schema: dict[str, Any] | None = field(default=None, compare=False, repr=False)  # a custom resource's own

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def resource(self) -> tuple[str, str]:
        return self.group, self.plural


def builtin(api_version, kind, plural, **more):
    group, _, version = api_version.rpartition("/")
    return Kind(group, version, kind, plural, **more)


CLUSTER = {"namespaced": False}
COUNTED = {"counted": True, "subresources": ("status",)}

BUILTIN = (
    builtin("v1", "Namespace", "namespaces", subresources=("status",), **CLUSTER),
    builtin(
        "v1",
        "Pod",
        "pods",
        subresources=("status", "log", "portforward"),
    ),
    builtin("v1", "Service", "services", subresources=("status",)),
    builtin("v1", "Endpoints", "endpoints"),
    builtin("v1", "ConfigMap", "configmaps"),
    builtin("v1", "Secret", "secrets"),
    builtin("v1", "ServiceAccount", "serviceaccounts"),
    builtin("v1", "Event", "events"),
    builtin("v1", "Node", "nodes", subresources=("status",), **CLUSTER),
    builtin("v1", "PersistentVolumeClaim", "persistentvolumeclaims", subresources=("status",)),
    builtin("v1", "PersistentVolume", "persistentvolumes", subresources=("status",), **CLUSTER),
    builtin("v1", "ResourceQuota", "resourcequotas", subresources=("status",)),
    builtin("v1", "LimitRange", "limitranges"),
    builtin("apps/v1", "Deployment", "deployments", **COUNTED),
    builtin("apps/v1", "ReplicaSet", "replicasets", **COUNTED),
    builtin("apps/v1", "DaemonSet", "daemonsets", **COUNTED),
    builtin("apps/v1", "StatefulSet", "statefulsets", **COUNTED),
    builtin("batch/v1", "CronJob", "cronjobs", **COUNTED),
    builtin("batch/v1", "Job", "jobs", **COUNTED),
    builtin("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", **COUNTED),
    builtin("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", counted=True),
    builtin("networking.k8s.io/v1", "Ingress", "ingresses", **COUNTED),
    builtin("rbac.authorization.k8s.io/v1", "Role", "roles"),
    builtin("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    builtin("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", **CLUSTER),
    builtin("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", **CLUSTER),
    builtin("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
    builtin("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", counted=True, **CLUSTER),
    builtin("storage.k8s.io/v1", "StorageClass", "storageclasses", **CLUSTER),
    builtin("coordination.k8s.io/v1", "Lease", "leases"),
    builtin(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        **CLUSTER,
        **COUNTED,
    ),
    builtin(
        "authorization.k8s.io/v1",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
        verbs=("create",),
        **CLUSTER,
    ),
)


def kinds_of(definition):
    """The kinds that one CustomResourceDefinition adds, one a served version."""
    spec = definition["spec"]
    names = spec["names"]
    for version in spec["versions"]:
        if version.get("served"):
            yield Kind(
                spec["group"],
                version["name"],
                names["kind"],
                names["plural"],
                namespaced=spec["scope"] == "Namespaced",
                subresources=tuple(version.get("subresources") or ()),
                counted=True,
                schema=version["schema"]["openAPIV3Schema"],
            )


class Catalogue:
    """Kinds by group, version and plural name."""

    def __init__(self):
        self.kinds = {(kind.group, kind.version, kind.plural): kind for kind in BUILTIN}

    def define(self, definition):
        self.forget(definition)
        for kind in kinds_of(definition):
            self.kinds[kind.group, kind.version, kind.plural] = kind

    def forget(self, definition):
        resource = definition["spec"]["group"], definition["spec"]["names"]["plural"]
        self.kinds = {key: kind for key, kind in self.kinds.items() if kind.resource != resource}

    def find(self, group, version, plural):
        return self.kinds.get((group, version, plural))

    def named(self, kind, group=""):
        """The kind of that name in its first version: what this server's own parts write with."""
        return next((one for one in self.kinds.values() if (one.kind, one.group) == (kind, group)), None)

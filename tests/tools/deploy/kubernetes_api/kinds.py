"""The kinds that the server knows: the built-in ones, and those of the CustomResourceDefinitions in it."""

from dataclasses import dataclass, field
from typing import Any

EVERYTHING = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Kind:
    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = EVERYTHING
    categories: tuple[str, ...] = ()
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
    builtin("v1", "Namespace", "namespaces", short=("ns",), subresources=("status",), **CLUSTER),
    builtin(
        "v1",
        "Pod",
        "pods",
        short=("po",),
        subresources=("status", "log", "portforward", "proxy"),
        categories=("all",),
    ),
    builtin("v1", "Service", "services", short=("svc",), subresources=("status", "proxy"), categories=("all",)),
    builtin("v1", "Endpoints", "endpoints", short=("ep",)),
    builtin("v1", "ConfigMap", "configmaps", short=("cm",)),
    builtin("v1", "Secret", "secrets"),
    builtin("v1", "ServiceAccount", "serviceaccounts", short=("sa",)),
    builtin("v1", "Event", "events", short=("ev",)),
    builtin("v1", "Node", "nodes", short=("no",), subresources=("status",), **CLUSTER),
    builtin("v1", "PersistentVolumeClaim", "persistentvolumeclaims", short=("pvc",), subresources=("status",)),
    builtin("v1", "PersistentVolume", "persistentvolumes", short=("pv",), subresources=("status",), **CLUSTER),
    builtin("v1", "ResourceQuota", "resourcequotas", short=("quota",), subresources=("status",)),
    builtin("v1", "LimitRange", "limitranges", short=("limits",)),
    builtin("apps/v1", "Deployment", "deployments", short=("deploy",), categories=("all",), **COUNTED),
    builtin("apps/v1", "ReplicaSet", "replicasets", short=("rs",), categories=("all",), **COUNTED),
    builtin("apps/v1", "DaemonSet", "daemonsets", short=("ds",), categories=("all",), **COUNTED),
    builtin("apps/v1", "StatefulSet", "statefulsets", short=("sts",), categories=("all",), **COUNTED),
    builtin("batch/v1", "CronJob", "cronjobs", short=("cj",), categories=("all",), **COUNTED),
    builtin("batch/v1", "Job", "jobs", categories=("all",), **COUNTED),
    builtin("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", short=("pdb",), **COUNTED),
    builtin("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", short=("netpol",), counted=True),
    builtin("networking.k8s.io/v1", "Ingress", "ingresses", short=("ing",), **COUNTED),
    builtin("rbac.authorization.k8s.io/v1", "Role", "roles"),
    builtin("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    builtin("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", **CLUSTER),
    builtin("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", **CLUSTER),
    builtin("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
    builtin("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", short=("pc",), counted=True, **CLUSTER),
    builtin("storage.k8s.io/v1", "StorageClass", "storageclasses", short=("sc",), **CLUSTER),
    builtin("coordination.k8s.io/v1", "Lease", "leases"),
    builtin(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        short=("crd", "crds"),
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
                short=tuple(names.get("shortNames", ())),
                subresources=tuple(version.get("subresources") or ()),
                categories=tuple(names.get("categories", ())),
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

    def versions(self):
        """Group → its versions, in the order they were added."""
        groups = {}
        for group, version, _ in self.kinds:
            versions = groups.setdefault(group, [])
            if version not in versions:
                versions.append(version)
        return groups
